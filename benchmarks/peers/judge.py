"""One quantised file under one judge: accuracy, drift, how much of it is INT8, and whether TensorRT-RTX builds it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from exporters.engines import tensorrt_rtx
from exporters.portable.sqnr import LEAST_SIGNAL, sqnr_db
from pipeline.parity.paired import paired_drop

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.data.images import Images


CONFIDENCE = 0.95
# Layers whose data input is what the last of them reads.
LAST = {"Gemm", "MatMul"}


@dataclass(frozen=True)
class Answers:
    """Of every image: ``logits`` (N, classes) and what the last layer reads (N, features), both float32."""

    logits: NDArray[np.float32]
    read: NDArray[np.float32]


def answers(path: Path, images: Images) -> Answers:
    """What the file answers, its Q/DQ computed one by one as it is written."""
    import onnxruntime

    model = onnx.load(path)
    read = [node.input[0] for node in model.graph.node if node.op_type in LAST][-1]
    wanted = [model.graph.output[0].name, read]
    model.graph.output.append(onnx.helper.make_tensor_value_info(read, onnx.TensorProto.FLOAT, None))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    # Convolutions in their fast layout, but no Q/DQ moved or fused: those would saturate on x86 without VNNI.
    settings.add_session_config_entry("session.disable_quant_qdq", "1")
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    # Some quantisers fix the batch: the last one is filled up with its first image.
    size = entry.shape[0] if isinstance(entry.shape[0], int) else 50
    batches = []
    for batch in images.batches(size):
        whole = np.concatenate([batch, np.repeat(batch[:1], size - len(batch), axis=0)])
        answered = session.run(wanted, {entry.name: whole})
        batches.append([values[: len(batch)] for values in answered])
    return Answers(*(np.concatenate(values) for values in zip(*batches, strict=True)))


def judged(path: Path, reference: Answers, images: Images) -> dict[str, Any]:
    """The figures of one cell."""
    answered, labels = answers(path, images), images.labels
    before, after = (found.logits.argmax(1) == labels for found in (reference, answered))
    drop = paired_drop(before, after, CONFIDENCE)
    return {
        "top1_float": float(before.mean()),
        "top1": float(after.mean()),
        "drop": drop.value,
        "lower": drop.lower,
        "upper": drop.upper,
        **distances(reference, answered),
        **coverage(onnx.load(path), images.shape),
        "tensorrt_rtx": accepted(path),
    }


def distances(reference: Answers, answered: Answers) -> dict[str, Any]:
    """How far the answers are from float: agreement, and medians over images of the SQNR in dB, with their intervals.

    ``offset`` is the share of the energy of the float logits that all classes have in common, which changes no answer;
    ``sqnr`` counts it, ``centred`` does not, and ``read`` is of what the last layer reads.
    """
    same = reference.logits.argmax(1) == answered.logits.argmax(1)
    agreement = agreed(int(same.sum()), len(same))
    energy = (reference.logits.astype(np.float64) ** 2).sum(1)
    common = reference.logits.shape[1] * reference.logits.mean(1, dtype=np.float64) ** 2
    return {
        "agreement": float(same.mean()),
        "agreement_lower": agreement[0],
        "agreement_upper": agreement[1],
        "offset": float(np.median(common / np.maximum(energy, LEAST_SIGNAL))),
        **_median("sqnr", sqnr_db(reference.logits, answered.logits)),
        **_median("centred", sqnr_db(centred(reference.logits), centred(answered.logits))),
        **_median("read", sqnr_db(reference.read, without_rescaling(reference.read, answered.read))),
    }


def agreed(same: int, count: int) -> tuple[float, float]:
    """The exact interval of the share of images whose answer is the same (Clopper and Pearson, 1934)."""
    from scipy.stats import binomtest

    interval = binomtest(same, count).proportion_ci(CONFIDENCE, method="exact")
    return float(interval.low), float(interval.high)


def centred(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Each image's logits minus their mean over the classes."""
    wide = logits.astype(np.float64)
    return np.asarray(wide - wide.mean(1, keepdims=True))


def without_rescaling(expected: NDArray[np.float32], read: NDArray[np.float32]) -> NDArray[np.float64]:
    """``read`` (N, features) without what is no noise: a power of two for each feature, and one number for all.

    Equalising leaves the powers and a shift that number; the weights of the layer that reads it take both back.
    """
    spread = expected.astype(np.float64) - expected.mean(0)
    variance = (spread**2).sum(0)
    slopes = (spread * read).sum(0) / np.maximum(variance, LEAST_SIGNAL)
    factors = 2 ** np.rint(np.log2(np.where(slopes > 0, slopes, 1)))
    shift = np.median((expected * factors - read).mean(0))
    return np.asarray((read + shift) / factors)


def _median(name: str, ratios_db: NDArray[np.float64]) -> dict[str, float]:
    """The median over images and its interval, which holds whatever the distribution (order statistics)."""
    from scipy.stats import quantile_test

    interval = quantile_test(ratios_db, p=0.5).confidence_interval(CONFIDENCE)
    return {
        f"{name}_db": float(np.median(ratios_db)),
        f"{name}_lower": float(interval.low),
        f"{name}_upper": float(interval.high),
    }


def coverage(model: onnx.ModelProto, shape: tuple[int, ...]) -> dict[str, float]:
    """The share of convolutions, and of multiply-adds, whose operands are both dequantised, and of Adds with one."""
    for length, dim in zip((1, *shape), model.graph.input[0].type.tensor_type.shape.dim, strict=True):
        dim.dim_value = length
    del model.graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*model.graph.value_info, *model.graph.output]
    }
    maker = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}

    def quantised(name: str) -> bool:
        return name in maker and maker[name].op_type == "DequantizeLinear"

    def size(name: str) -> list[int]:
        while name not in weights:
            name = maker[name].input[0]
        return weights[name]

    convs, macs, adds = [], [], []
    for node in model.graph.node:
        if node.op_type in {"Conv", "Gemm", "MatMul"}:
            done = all(quantised(name) for name in node.input[:2])
            kernel = size(node.input[1])
            work = np.prod(shapes[node.output[0]]) * np.prod(kernel) / max(kernel[0], 1)
            macs.append((done, work))
            convs += [done] if node.op_type == "Conv" else []
        if node.op_type == "Add" and not any(name in weights for name in node.input):
            adds.append(any(quantised(name) for name in node.input))
    total = sum(work for _, work in macs)
    return {
        "convolutions": float(np.mean(convs)),
        "macs": float(sum(work for done, work in macs if done) / total),
        "adds": float(np.mean(adds)) if adds else 1.0,
    }


def accepted(path: Path) -> str:
    """``yes``, or why TensorRT-RTX does not build it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            tensorrt_rtx.BACKEND.build(path, Path(folder, "engine"))
        except (RuntimeError, ValueError) as error:
            return str(error)
    return "yes"
