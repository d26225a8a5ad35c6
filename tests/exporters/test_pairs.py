"""What is known of a pair and of what reaches it, through nodes that only move values."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from onnx import parser

from exporters import pairs

BODY = """<ir_version: 8, opset_import: ["" : 17]> net (float[n, 4, 6, 6] images) => (float[a, b, c, d] moved)
<int64[4] shape = {{0, 4, 6, 6}}, int64[8] pads = {{0, 0, 1, 1, 0, 0, 1, 1}}, float low = {{-1}},
 float scale = {{0.1}}, int8 zero = {{0}}> {{ {body} }}"""


def graph(body: str) -> ir.Graph:
    return ir.from_proto(parser.parse_model(BODY.format(body=body))).graph


@pytest.mark.parametrize(
    ("operator", "holds"),
    [
        ("Reshape (positive, shape)", True),
        ("Transpose <perm = [0, 1, 3, 2]> (positive)", True),
        ("Identity (positive)", True),
        ("MaxPool <kernel_shape = [2, 2]> (positive)", True),
        ("Pad (positive, pads, low)", False),
        ("Neg (positive)", False),
    ],
)
def test_what_was_never_negative_stays_so_while_it_is_only_moved(operator: str, *, holds: bool) -> None:
    (moved,) = graph(f"positive = Relu (images) moved = {operator}").outputs
    assert pairs.never_negative(moved) == holds


def test_the_quantiser_of_moved_levels_is_found() -> None:
    nodes = list(
        graph(
            "q = QuantizeLinear (images, scale, zero) r = Reshape (q, shape) i = Identity (r)"
            " moved = DequantizeLinear (i, scale)"
        )
    )
    assert pairs.quantise_of(nodes[-1]) is nodes[0]
    zero_point = pairs.zero_of(nodes[-1])
    assert zero_point is not None
    assert zero_point.dtype == "int8"


def test_a_constant_operand_is_found_however_it_is_spelt() -> None:
    nodes = list(
        graph("s = Identity (scale) q = QuantizeLinear (images, s, zero) moved = DequantizeLinear (q, s, zero)")
    )
    scale = pairs.constant_operand(nodes[1], pairs.SCALE)
    assert scale is not None
    assert scale.shape == ()
    assert pairs.constant_operand(nodes[1], 0) is None
