"""Every rule of lint is broken by a graph of its own, and no rule by the graph that those are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
import pytest
import rtx_layers
from bad_graphs import AT, HONEST, LINTED, REFUSED, UNREAD, Bad
from small_graphs import BROKEN

from exporters import lint, onnx_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from faults import Fault


def test_every_rule_has_a_graph_that_breaks_it() -> None:
    broken = {bad.rule for bad in LINTED.values()}
    for small in BROKEN.values():
        broken |= {rule for rule, _ in small.broken}
    assert broken == set(lint.RULES)


@pytest.mark.parametrize("bad", LINTED.values(), ids=LINTED)
def test_a_bad_graph_breaks_its_rule_alone_and_is_built_as_it_says(built: Path, tmp_path: Path, bad: Bad) -> None:
    model = onnx.load(built / "05-int8.onnx")
    bad.plant(model)
    onnx.save(model, tmp_path / "bad.onnx")
    found = lint.lint(onnx_file.read(tmp_path / "bad.onnx"), bad.placement, bad.opset)
    assert {item.rule for item in found} == {bad.rule}
    assert bad.module is None or [item.module for item in found] == [bad.module]
    assert {item.effect for item in found} == {bad.built}

    description = rtx_layers.built(tmp_path / "bad.onnx")
    assert (description is None) == (bad.built == lint.REFUSED)
    if description is None:
        return
    convolutions = {operation.module for operation in description.convolutions}
    in_float = {operation.module for operation in description.convolutions if not operation.reads_8_bits}
    expected = {AT} if bad.module is not None else convolutions
    assert in_float == (expected if bad.built == lint.FLOAT else set())


@pytest.mark.parametrize(("change", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_model_is_refused_in_a_sentence(
    built: Path, tmp_path: Path, change: Callable[[bytes], bytes], sentence: str
) -> None:
    (tmp_path / "bad.onnx").write_bytes(change((built / "05-int8.onnx").read_bytes()))
    with pytest.raises(ValueError, match=r"^bad\.onnx is ") as raised:
        onnx_file.read(tmp_path / "bad.onnx")
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("plant", HONEST.values(), ids=HONEST)
def test_the_honest_graph_breaks_none_however_it_is_stored(built: Path, tmp_path: Path, plant: Fault) -> None:
    model = onnx.load(built / "05-int8.onnx")
    plant(model)
    onnx.save(model, tmp_path / "good.onnx")
    read = onnx_file.read(tmp_path / "good.onnx")
    assert [lint.lint(read, placement) for placement in ("tensorrt", "onnxruntime")] == [[], []]
    assert bool(lint.lint(read, "tensorrt-8")) == (plant is not HONEST["weights in float behind whole pairs"])
    description = rtx_layers.built(tmp_path / "good.onnx")
    assert description is not None
    # 13 convolutions and the classifier; by number, for the file without names.
    assert len(rtx_layers.kernels_in_8_bits(description)) == 14


@pytest.mark.parametrize(("plant", "rules"), UNREAD.values(), ids=UNREAD)
def test_no_rule_falls_over_a_graph_that_is_none(built: Path, plant: Fault, rules: set[str]) -> None:
    model = onnx.load(built / "05-int8.onnx")
    plant(model)
    assert {item.rule for item in lint.lint(ir.from_proto(model))} == rules
