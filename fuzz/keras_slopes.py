"""Input gradients against differences of the model's own scores in double precision.

The tape that the witness asks is TensorFlow's, and what that says of an operation is at times not
its slope. The same model is built anew in float64, with the same weights, and moved a little.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fuzz.case import Case
from fuzz.judging import GRADIENTS, check_rows, limit, moved_out_of_ties, off
from fuzz.keras_wider import Build, computed_in, precision, rebuilt
from fuzz.keras_witness import Witness
from fuzz.scoring import Array

#: What has another gradient than its slope, as its author says.
_OWN_GRADIENTS = ("stop_gradient", "custom_gradient", "Codebook", "Reversed")
#: Directions in which an input is moved, and the least size of a gradient.
_WAYS, _LEAST = 3, 1e-4


def in_double(
    case: Case,
    build: Build,
    built: Mapping[str, Any],
    feed: Sequence[Array],
    expected: Sequence[Array],
) -> Witness | None:
    """Returns the witness of a case in float64; None where that is another model, or none.

    None too where TensorFlow computes a part of it in float32 all the same: steps are lost there.

    Args:
        case: the case.
        build: makes the variables of a case.
        built: those of the case itself.
        feed: inputs.
        expected: what the case's own model predicts of them.
    """
    has_own = any(word in line.code for line in case.lines for word in _OWN_GRADIENTS)
    is_cast = any("dtype='float" in line.code for line in case.lines if line.role == "input")
    if case.policy not in ("float32", "float64") or has_own or is_cast:
        return None
    try:
        witness = rebuilt(case, build, built, "float64")
        with precision("float64"):
            found = witness.predictions(_widened(feed))
            coarse = computed_in("float64", witness, _widened(feed)) != "float64"
    except Exception:  # whatever Keras has not in float64
        return None
    same = all(off(b, a) <= limit("float32") for a, b in zip(expected, found, strict=True))
    return witness if same and not coarse else None


@dataclasses.dataclass(frozen=True)
class Shown:
    """A gradient of an input that an artefact gives.

    Attributes:
        probe: what asked for it.
        feed: the inputs.
        asked: what the request asks for.
        at: the place of the input.
        given: inputs -> what the artefact gives there.
        taped: what TensorFlow's tape says there; None where it is not known.
        noisy: number of a draw -> the same under noise of the size of rounding.
        policy: the precision of the model.
    """

    probe: Any
    feed: Sequence[Array]
    asked: Mapping[str, Array]
    at: int
    given: Callable[[Sequence[Array]], Array]
    taped: Array | None
    noisy: Callable[[int], Array | None]
    policy: str


def check_slopes(what: str, shown: Shown, wide: Witness) -> bool:
    """Compares a gradient with differences in some directions; returns whether these are known.

    Args:
        what: is compared.
        shown: the gradient.
        wide: the model in float64.

    Raises:
        FoundError: it is another.
    """
    x = shown.feed[shown.at]
    ways = np.random.default_rng(11).normal(size=(_WAYS, *x.shape[1:])) / np.sqrt(x[0].size)

    def along(gradient: Array) -> Array:
        flat = gradient.astype(np.float64).reshape(len(gradient), -1)
        return np.asarray(flat @ ways.reshape(_WAYS, -1).T)

    def told(feed: Sequence[Array]) -> Array | None:
        with precision("float64"):
            return wide.slopes(shown.probe, _widened(feed), shown.asked, shown.at, ways)

    def size(gradient: Array) -> Array:
        length = np.linalg.norm(gradient.astype(np.float64).reshape(len(gradient), -1), axis=1)
        return np.asarray(np.maximum(np.nan_to_num(length) / np.sqrt(x[0].size), _LEAST)[:, None])

    got, right = shown.given(shown.feed), told(shown.feed)
    if right is None or got.shape != x.shape or not np.isfinite(right).any():
        return False
    sizes = size(got)

    def again(draw: int) -> Array | None:
        """Rounding: how far noise moves what the tape says."""
        with precision(shown.policy):
            there = shown.noisy(draw)
        if shown.taped is None or there is None:
            return None
        return np.asarray((right + along(there) - along(shown.taped)) / sizes)

    def beside(draw: int) -> tuple[Array, Array | None]:
        there = moved_out_of_ties(shown.feed, draw)
        found, slopes = shown.given(there), told(there)
        scale = size(found)
        return along(found) / scale, None if slopes is None else slopes / scale

    most = GRADIENTS * limit(shown.policy if shown.policy != "float64" else "float32")
    check_rows(what, along(got) / sizes, right / sizes, _apart, most, again, beside)
    return True


def _apart(got: Array, right: Array) -> float:
    finite = np.isfinite(right)
    if not np.isfinite(got[finite]).all():
        return np.inf
    return float(np.abs(got[finite] - right[finite]).max(initial=0.0))


def _widened(feed: Sequence[Array]) -> list[Array]:
    return [x.astype(np.float64) if np.issubdtype(x.dtype, np.floating) else x for x in feed]
