"""Constants of two files held against each other: each within the bound that its way of storing allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exporters.known_numbers import Constant
from exporters.number_formats import NUMBER_FORMATS
from exporters.rounding import SMALLEST32, U32, U64, scale_as, storage

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir
    from numpy.typing import NDArray

    from exporters.certificate import Certificate
    from exporters.rounding import Bound
    from exporters.stage_changes import Changes

    Refute = Callable[[ir.Node | None, str], None]

# gamma / sqrt(var + eps), times W: four float64 operations; the bias has three more. Sixteen covers both generously.
FOLD_ROUNDING = 16 * U64
# What has weights that training changes.
TRAINED = {"Conv", "Gemm"}


class HeldConstants:
    """The comparison of constants: counted in ``certificate``, refuted through ``refute``."""

    def __init__(self, allowed: Changes, certificate: Certificate, refute: Refute) -> None:
        self.allowed = allowed
        self.certificate = certificate
        self.refute = refute

    def compare(self, node: ir.Node | None, name: str, was: Constant, now: Constant) -> None:
        """``now``, which ``node`` reads, is ``was``, but for what the stage may change."""
        if self.allowed.retrains and node is not None and node.op_type in TRAINED and was.dtype == now.dtype:
            self._compare_retrained(node, was, now)
        elif was.quantised is not None and now.quantised is not None:
            # Levels next to levels: the same ones, under the same scales or their nearest float16.
            old_levels, old_scale = was.quantised
            new_levels, new_scale = now.quantised
            self._hold_within(node, f"levels of {name}", new_levels, old_levels.values, 0.0)
            self.compare_scales(node, f"scale of {name}", old_scale, new_scale)
        elif now.quantised is not None:
            self._refuse_format(node, name, now)
            self._hold_within(node, name, now, was.values, storage(now, was.values) + was.error)
        elif now.dtype == was.dtype:
            # Of levels the products, each rounded once.
            exact = was.values if was.quantised is None else was.array.astype(np.float64)
            self._hold_within(node, name, now, exact, was.error + now.error)
        elif now.dtype == np.float16 and self.allowed.float16:
            # Rounding to the nearest is a function: what it gives is compared exactly.
            nearest = was.array.astype(np.float16).astype(np.float64)
            bound = 0.0 if was.exact else was.error + storage(now, was.values)
            self._hold_within(node, name, now, nearest, bound)
        else:
            self.refute(node, f"{name} is {now.dtype}, it was {was.dtype}")

    def compare_scales(self, node: ir.Node | None, name: str, was: Constant, now: Constant) -> None:
        """The same scale, or its nearest float16 where the stage halves."""
        if was.dtype != now.dtype and not (self.allowed.float16 and now.dtype == np.float16):
            self.refute(node, f"{name} is {now.dtype}, it was {was.dtype}")
            return
        if was.numbers.size == 1 and now.numbers.size == 1:
            was = _flat(was)
            now = _flat(now)
        self._hold_within(node, name, now, scale_as(was, now.dtype), 0.0)

    def hold_computed(
        self,
        node: ir.Node,
        name: str,
        stored: Constant,
        exact: NDArray[np.float64],
        terms: NDArray[np.float64] | None,
        error: Bound,
        share: float,
    ) -> None:
        """``stored`` was computed from constants of the graph before, which give ``exact``.

        Allowed are one rounding to float32, the float64 roundings of both computations, ``share`` of the magnitudes
        for a tool that computes in float32, the ``error`` that the constants had, and what storage adds. ``terms`` are
        the magnitudes that were summed; None of a product, which is its own.
        """
        self._refuse_format(node, name, stored)
        if stored.shape != exact.shape and stored.numbers.size == exact.size:
            stored = _flat(stored)
        magnitude = np.abs(exact)
        if terms is None:
            bound = (U32 + FOLD_ROUNDING + share) * magnitude
        else:
            bound = U32 * magnitude + (FOLD_ROUNDING + share) * terms
        bound += SMALLEST32 + error + storage(stored, exact)
        self._hold_within(node, name, stored, exact, bound)

    def _refuse_format(self, node: ir.Node | None, name: str, constant: Constant) -> None:
        """New levels are of a format that the stage makes; INT32, of a bias, stands beside every one of them."""
        if constant.dtype == np.float16 and not self.allowed.float16:
            self.refute(node, f"{name} is float16, which {self.allowed.name} does not make")
        if constant.quantised is None:
            return
        levels, scale = constant.quantised
        if not (np.isfinite(scale.values) & (scale.values > 0)).all():
            self.refute(node, f"{name} has a scale that is no positive number")
        dtype = levels.dtype
        allowed = {NUMBER_FORMATS[row].dtype for row in self.allowed.formats}
        is_bias = bool(allowed) and dtype == np.int32
        if dtype not in allowed and not is_bias:
            self.refute(node, f"{name} is stored as {dtype} levels, which {self.allowed.name} does not make")

    def _compare_retrained(self, node: ir.Node, was: Constant, now: Constant) -> None:
        """Other numbers, which are counted, of the same shape, and finite."""
        if was.shape != now.shape:
            self.refute(node, f"a weight of {node.name} has shape {now.shape}, it had {was.shape}")
            return
        if not np.array_equal(was.array, now.array):
            self.certificate.retrained += 1
        if not np.isfinite(now.values).all():
            self.refute(node, f"a weight of {node.name} holds NaN or infinity")

    def _hold_within(
        self, node: ir.Node | None, name: str, stored: Constant, exact: NDArray[np.float64], bound: Bound
    ) -> None:
        """Refute the constant ``stored`` where any of its values is further than ``bound`` from ``exact``."""
        self.certificate.constants += 1
        if stored.shape != exact.shape:
            self.refute(node, f"{name} has shape {stored.shape}, it had {exact.shape}")
            return

        allowed = np.broadcast_to(bound, exact.shape)
        share = _share(stored.values, exact, allowed)
        largest_share = float(share.max(initial=0.0))
        if largest_share <= 1:
            self.certificate.largest = max(self.certificate.largest, largest_share)
            return

        worst = np.unravel_index(int(np.argmax(share)), share.shape)
        place = tuple(int(index) for index in worst)
        found = f"{name}{list(place) or ''} is {stored.values[place]:.9g}, expected {exact[place]:.9g}"
        self.refute(node, f"{found} within {allowed[place]:.3g}")


def _flat(constant: Constant) -> Constant:
    return Constant(constant.numbers.ravel(), constant.dtype, constant.error)


def _share(
    values: NDArray[np.float64], exact: NDArray[np.float64], allowed: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The share of its bound that each of ``values`` uses up.

    Where nothing is allowed, an error of 0 uses up nothing and any other infinitely much.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.asarray(np.abs(np.subtract(values, exact)))
        share: NDArray[np.float64] = np.divide(error, allowed, out=error)
    # 0 of 0 is no number, nor is the difference of two infinities.
    unclear = np.isnan(share)
    if unclear.any():
        share[unclear] = np.where(values[unclear] == exact[unclear], 0.0, np.inf)
    return share
