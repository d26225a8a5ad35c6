"""One quantised file under one judge: accuracy, drift, how much of it is INT8, and whether TensorRT-RTX builds it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from exporters.engines import tensorrt_rtx
from pipeline.parity.drift import drift
from pipeline.parity.paired import paired_drop

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.data.images import Images


def logits(path: Path, images: Images) -> NDArray[np.float32]:
    """What the file answers, its Q/DQ computed one by one as it is written."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    # Convolutions in their fast layout, but no Q/DQ moved or fused: those would saturate on x86 without VNNI.
    settings.add_session_config_entry("session.disable_quant_qdq", "1")
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    # Some quantisers fix the batch: the last one is filled up with its first image.
    size = entry.shape[0] if isinstance(entry.shape[0], int) else 50
    answers = []
    for batch in images.batches(size):
        whole = np.concatenate([batch, np.repeat(batch[:1], size - len(batch), axis=0)])
        answers.append(session.run(None, {entry.name: whole})[0][: len(batch)])
    return np.concatenate(answers)


def judged(path: Path, reference: NDArray[np.float32], images: Images) -> dict[str, Any]:
    """The figures of one cell."""
    answered = logits(path, images)
    far, labels = drift(reference, answered), images.labels
    drop = paired_drop(reference.argmax(1) == labels, answered.argmax(1) == labels, 0.95)
    return {
        "top1": float((answered.argmax(1) == labels).mean()),
        "drop": drop.value,
        "lower": drop.lower,
        "upper": drop.upper,
        "agreement": far.top1_agreement,
        "sqnr_db": far.sqnr_db,
        **coverage(onnx.load(path), images.shape),
        "tensorrt_rtx": accepted(path),
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
