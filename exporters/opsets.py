"""What changed in an operator from one ONNX opset to the next, and where a node notices it.

To raise a graph from opset 17 to 19 or 21, each node needs one of these:

- nothing but the number, where ``changed`` is empty and the two following are too: almost all operators.
- ``moved``: its axes as input 1, since 18: ReduceL1, L2, LogSum, LogSumExp, Max, Mean, Min, Prod and SumSquare.
- ``defaults_to_write``: since 18 a Split without sizes has to say ``num_outputs``.
- another graph, or a refusal by name, where ``changed`` says something: GroupNormalization since 21; a pool with
  ceil_mode whose last window starts in the padding, since 22; Upsample and Scatter, which were withdrawn; what
  has no row and is described otherwise, as DFT and GridSample since 20.

From an older opset also: Softmax, LogSoftmax and Hardmax before 13 over more than one axis; Resize of opset 10;
BatchNormalization that trains. Attributes that moved: of Squeeze, Unsqueeze, Split and ReduceSum at 13, of Clip and Pad
at 11, of Dropout at 12, of Slice and TopK at 10.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import onnx

from exporters.constant import evaluate_constant
from exporters.node_attributes import added_later, canonical_attributes, defaults_of, spelt_as_inputs, use_of
from exporters.opset_versions import VERSIONS, Attributes, Use, Version

if TYPE_CHECKING:
    import onnx_ir as ir

    from exporters.opset_versions import Constants

__all__ = ["canonical_attributes", "changed", "defaults_to_write", "moved", "spelt_as_inputs"]


def changed(
    node: ir.Node,
    old_opset: int,
    new_opset: int,
    constants: Constants = evaluate_constant,
    like: ir.Node | None = None,
) -> str:
    """What the operator of ``node``, written for ``old_opset``, means otherwise in ``new_opset``; empty if nothing.

    Attributes are taken as ``canonical_attributes`` has them: spelling is no change. ``like`` is the same node in
    another file, whose shapes hold where those of ``node`` are not written.
    """
    if old_opset == new_opset:
        return ""
    operator = node.op_type
    domain = node.domain
    for opset in (old_opset, new_opset):
        unknown = _unknown(operator, domain, opset)
        if unknown:
            return unknown

    use = use_of(node, old_opset, constants, like)
    for number in _versions_between(operator, domain, old_opset, new_opset):
        difference = _difference(operator, domain, number, use)
        if difference:
            return difference
    return ""


def moved(node: ir.Node, old_opset: int, new_opset: int) -> dict[str, int]:
    """The attributes that ``node`` has and that are inputs in ``new_opset``, with their places."""
    before = set(spelt_as_inputs(node.op_type, old_opset, node.domain).values())
    after = spelt_as_inputs(node.op_type, new_opset, node.domain)
    return {name: place for place, name in after.items() if name not in before and name in node.attributes}


def defaults_to_write(node: ir.Node, old_opset: int, new_opset: int) -> Attributes:
    """What ``node``, written for ``old_opset``, leaves out and has to say in ``new_opset`` to mean the same."""
    if node.domain:
        return {}
    old_defaults = {**added_later(node.op_type, old_opset), **defaults_of(node.op_type, "", old_opset)}
    wanted: Attributes = {}
    for name, default in defaults_of(node.op_type, "", new_opset).items():
        old_default = old_defaults.get(name)
        if name not in node.attributes and old_default not in (None, default):
            wanted[name] = old_default
    has_sizes = "split" in node.attributes or len(node.inputs) > 1
    if node.op_type == "Split" and old_opset < 18 <= new_opset and not has_sizes:
        wanted["num_outputs"] = len(node.outputs)
    return wanted


@cache
def _unknown(operator: str, domain: str, opset: int) -> str:
    """Why ONNX cannot tell what ``operator`` means in ``opset``; empty where it can."""
    where = f"opset {opset}" + (f" of {domain}" if domain else "")
    newest = onnx.defs.onnx_opset_version()
    if not domain and opset > newest:
        return f"{where} is newer than {newest}, the newest that is known here"
    if not onnx.defs.has(operator, opset, domain):
        return f"{operator} is unknown to {where}"
    return ""


@cache
def _versions_between(operator: str, domain: str, one: int, other: int) -> tuple[int, ...]:
    """The versions of ``operator`` that one of the opsets has and the other has not, oldest first."""
    oldest, newest = sorted((one, other))
    numbers = []
    number = onnx.defs.get_schema(operator, newest, domain).since_version
    while number > oldest:
        numbers.append(number)
        number = onnx.defs.get_schema(operator, number - 1, domain).since_version
    return tuple(reversed(numbers))


def _difference(operator: str, domain: str, number: int, use: Use) -> str:
    """What version ``number`` of the operator changed for this use; empty for nothing."""
    version = _row(operator, domain, number)
    if version is None and onnx.defs.get_schema(operator, number, domain).deprecated:
        return f"{operator} was withdrawn from opset {number}"
    if version is None and _only_types_differ(operator, domain, number):
        return ""
    if version is None:
        return f"{operator} of opset {number} is described otherwise than before, and no row says where that matters"
    if version.matters is None or not version.matters(use):
        return ""
    return f"{operator} of opset {number} {version.says}"


def _row(operator: str, domain: str, number: int) -> Version | None:
    if domain:
        return None
    return next((version for version in VERSIONS.get(operator, ()) if version.number == number), None)


@cache
def _only_types_differ(operator: str, domain: str, number: int) -> bool:
    """Whether this version and the one before are described in the same words: it takes more types, or none."""
    newer = onnx.defs.get_schema(operator, number, domain)
    older = onnx.defs.get_schema(operator, number - 1, domain)
    return _description(newer) == _description(older)


def _description(schema: onnx.defs.OpSchema) -> tuple[object, ...]:
    """All that ONNX says of one version of an operator, but for the types that it takes."""
    attributes = {}
    for name, attribute in schema.attributes.items():
        default = attribute.default_value.SerializeToString(deterministic=True)
        attributes[name] = (attribute.type, attribute.required, default)
    inputs = [(value.name, value.option) for value in schema.inputs]
    outputs = [(value.name, value.option) for value in schema.outputs]
    return schema.doc, attributes, inputs, outputs
