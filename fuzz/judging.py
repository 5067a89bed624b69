"""How far numbers may be apart, and how far noise of the size of rounding moves them anyhow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import COMPLETENESS, SHARE_OF_SCORES

Array = npt.NDArray[Any]

#: Largest `|a - b|` over the largest value, by what is computed in; gradients get ten times that.
_LIMITS = {"float64": 1e-8, "float32": 3e-4}
_COARSE = 5e-2
GRADIENTS = 10.0
#: Relative size of the noise that tells whether an answer is steady at all.
_NOISE = {"float64": 1e-11, "float32": 1e-6}
_COARSE_NOISE = 1e-3
_DRAWS = 4
#: Two further draws -> the sign of their one noise, which moves equal numbers alike: as rounding
#: does where a division by a number became a product.
_ALIKE = {_DRAWS: 1.0, _DRAWS + 1: -1.0}
#: Relative size of the noise that leads out of ties and away from kinks, beyond the steps of
#: differences.
_OUT_OF_TIES = 1e-3
#: By how much more than noise moves what is right a row may be off.
_STEADY = 10.0
_SATURATED = 1e-2
#: What the length of an attribution counts as, where it is shorter.
_SHORTEST = 1e-4
#: Groups of positions that a request has, where there may be any number.
_GROUPS = 4
#: How many equal rows are run together to tell how far rounding leads.
_COPIES = range(2, 8)
SMALL_PART = 1e-3


class FoundError(Exception):
    """What came out is wrong."""


def asked_of(manifest: Any, named: Mapping[str, Array]) -> dict[str, Array]:
    """Returns what a request asks for, a row a sample: classes, some the best; positions; groups.

    Args:
        manifest: of the artefact.
        named: what it is fed.
    """
    asked: dict[str, Array] = {}
    rng = np.random.default_rng(7)
    rows = len(next(iter(named.values())))
    if manifest.target_input:
        classes = manifest.target_classes
        asked["target"] = np.arange(rows) % (3 if classes is None else min(3, classes + 1)) - 1
    if manifest.region_input:  # an axis of size 1 holds for all positions along it
        sizes = [size or 1 for size in manifest.region_input.shape[1:]]
        asked["region"] = rng.uniform(0.2, 1.5, (rows, *sizes)).astype(np.float32)
    if (spec := manifest.groups_input) is not None:
        kinds = {"feature_ablation", "kernel_shap", "lime"}
        named_so = {one.input for one in manifest.explanations if one.kind in kinds}
        own = [one for one in manifest.inputs if one.name in named_so] or manifest.inputs
        like = max(own, key=lambda one: len(set(spec.axes) & set(one.axes)))
        given = dict(zip(like.axes, named[like.name].shape, strict=False))
        sizes = [size or given[axis] for axis, size in zip(spec.axes, spec.shape, strict=True)]
        asked["groups"] = rng.integers(0, spec.vocabulary or _GROUPS, sizes).astype(np.int32)
    return asked


def is_tie(scores: Array, policy: str) -> bool:
    """Tells whether the best of some scores is as good as another but for rounding."""
    if scores.size < 2:
        return False
    second, best = np.sort(scores.astype(np.float64))[-2:]
    return bool(best - second <= _STEADY * noise(policy) * abs(best))


def limit(policy: str) -> float:
    """Returns how far numbers may be apart that are computed in a type."""
    return _LIMITS.get(policy, _COARSE)


def noise(policy: str) -> float:
    """Returns the relative size of noise that is of the size of rounding."""
    return _NOISE.get(policy, _COARSE_NOISE)


def sign_alike(draw: int) -> float:
    """Returns the sign of a draw of noise that moves equal numbers alike; 0 of any other draw."""
    return _ALIKE.get(draw, 0.0)


def moved(feed: Sequence[Array], policy: str, draw: int) -> list[Array]:
    """Returns inputs with noise of the size of rounding."""
    sign = sign_alike(draw)
    rng = np.random.default_rng(_DRAWS if sign else draw)
    size = noise(policy) * (sign or 1.0)

    def drawn(x: Array) -> Array:
        if not sign:
            return rng.normal(size=x.shape)
        each, places = np.unique(x, return_inverse=True)
        signs = rng.choice((-1.0, 1.0), each.shape)  # none so small that it is rounded away
        return (signs * rng.uniform(0.5, 1.5, each.shape))[places].reshape(x.shape)

    return [
        (x + size * (np.abs(x) + 0.1) * drawn(x)).astype(x.dtype)
        if np.issubdtype(x.dtype, np.floating)
        else x
        for x in feed
    ]


def moved_out_of_ties(feed: Sequence[Array], draw: int) -> list[Array]:
    """Returns inputs at which nothing is equal by chance, and near to the given ones."""
    rng = np.random.default_rng(draw)
    return [
        (x + _OUT_OF_TIES * (np.abs(x) + 1) * rng.uniform(0.5, 1.5, x.shape)).astype(x.dtype)
        if np.issubdtype(x.dtype, np.floating)
        else x
        for x in feed
    ]


def off(got: Array, expected: Array, least: float = 0.0) -> float:
    """Returns the largest difference over the largest value; NaN and infinities must be the same.

    The largest value counts as `least` where it is smaller.
    """
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(got)):
        return np.inf
    if not np.array_equal(got[~finite], expected[~finite], equal_nan=True):
        return np.inf
    if not finite.any():
        return 0.0
    size = max(1e-3, least, float(np.abs(expected[finite]).max()))
    return float(np.abs(got[finite] - expected[finite]).max()) / size


def distance(got: Array, expected: Array, least: float = 0.0) -> float:
    """Returns the Euclidean distance over the length, which counts as `least` where it is shorter.

    Where the reference is not finite, nothing is known.
    """
    finite = np.isfinite(expected)
    if not np.isfinite(got[finite]).all():
        return np.inf
    size = max(_SHORTEST, least, float(np.linalg.norm(expected[finite])))
    return float(np.linalg.norm(got[finite] - expected[finite])) / size


def check_rows(
    what: str,
    got: Array,
    expected: Array,
    apart: Callable[[Array, Array], float],
    most: float | Array,
    again: Callable[[int], Array | None],
    beside: Callable[[int], tuple[Array, Array | None]] | None = None,
    wider: Callable[[], Array | None] = lambda: None,
) -> None:
    """Compares row by row; beyond the limit a row may be as far off as noise moves what is right.

    Args:
        what: is compared.
        got: what came out.
        expected: what is right.
        apart: tells how far two rows are apart.
        most: how far they may be anyhow, or how far each may.
        again: number of a draw -> what is right of inputs with noise; None where nothing is known.
        beside: number of a draw -> what comes out and what is right of inputs that are moved out
            of ties. Where both agree there, the inputs themselves lie at a tie or a kink, at which
            differences tell nothing; what is not finite is wrong all the same.
        wider: tells what is right where less is rounded; None where nothing is known.

    Raises:
        FoundError: the shapes differ, or a row differs by more.
    """
    if got.shape != expected.shape:
        raise FoundError(f"{what} has the shape {got.shape}, expected {expected.shape}")
    noisy: list[Array] | None = None
    for row, allowed in enumerate(np.broadcast_to(most, len(expected))):
        away = apart(got[row], expected[row])
        if away <= allowed:
            continue
        if noisy is None:
            found = (*(again(n) for n in (*range(_DRAWS), *_ALIKE)), wider())
            noisy = [other for other in found if other is not None]
        shaken = max((apart(other[row], expected[row]) for other in noisy), default=np.inf)
        is_excused = away <= _STEADY * shaken or (
            beside is not None
            and np.isfinite(got[row]).all()
            and _agree_beside(beside, row, apart, allowed)
        )
        if not is_excused:
            raise FoundError(f"{what} differs in row {row} by {away:.1e} (noise: {shaken:.1e})")


def _agree_beside(
    beside: Callable[[int], tuple[Array, Array | None]],
    row: int,
    apart: Callable[[Array, Array], float],
    most: float,
) -> bool:
    """Tells whether a row is right where it is moved to, as far as that is known.

    One place may lie at a tie of its own: maxima of large windows are often near to each other.
    """
    right_ones = wrong_ones = 0
    for draw in range(_DRAWS):
        got, right = beside(draw)
        if right is None or not np.isfinite(right[row]).any():
            continue
        is_right = apart(got[row], right[row]) <= most
        right_ones, wrong_ones = right_ones + is_right, wrong_ones + (not is_right)
    return right_ones > _DRAWS // 2 and wrong_ones <= 1


def check_prediction(
    what: str,
    got: Any,
    expected: Any,
    policy: str,
    again: Callable[[int], Array | None],
    wider: Callable[[], Array | None] = lambda: None,
) -> None:
    """Compares a prediction; see `check_rows`.

    Raises:
        FoundError: it differs.
    """
    found, right = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    if found.shape != right.shape:
        raise FoundError(f"{what} has the shape {found.shape}, the model's is {right.shape}")
    check_rows(what, found, right, off, limit(policy), again, wider=wider)


def check_attribution(
    what: str,
    got: Any,
    expected: Array,
    policy: str,
    again: Callable[[int], Array | None],
    beside: Callable[[int], tuple[Array, Array | None]] | None = None,
    most: float = 0.0,
    shortest: float | Array = 0.0,
    wider: Callable[[], Array | None] = lambda: None,
) -> None:
    """Compares an attribution; where all is saturated, what is left of a gradient is rounding.

    Args:
        what: is compared.
        got: what came out.
        expected: what is right.
        policy: what is computed in.
        again: as for `check_rows`.
        beside: as for `check_rows`.
        most: how far they may be apart if that is more than what is computed in says.
        shortest: what the length of an attribution counts as, where it is shorter; or that of each
            row.
        wider: as for `check_rows`.

    Raises:
        FoundError: it differs.
    """
    found = np.asarray(got, np.float64)
    least = _SATURATED * float(np.linalg.norm(np.nan_to_num(expected[0])))
    least = max(float(np.min(shortest)), least)

    def apart(row: Array, right: Array) -> float:
        """What is known may be the small part of a row, of which the large part is not."""
        whole = SMALL_PART * float(np.linalg.norm(np.nan_to_num(row)))
        return distance(row, right, max(least, whole if np.isnan(right).any() else 0.0))

    flat = np.nan_to_num(expected).reshape(len(expected), -1)
    sizes = np.maximum(np.linalg.norm(flat, axis=1), max(least, _SHORTEST))
    usual = max(most, GRADIENTS * limit(policy))
    limits = usual * np.maximum(1, shortest / sizes)
    check_rows(what, found, expected, apart, limits, again, beside, wider)


def check_rows_alone(
    art: Any,
    named: dict[str, Array],
    result: Any,
    policy: str,
    asked: dict[str, Array],
    is_undecided: Callable[[Any], bool] = lambda _: False,
    logits: Sequence[Array] = (),
) -> None:
    """Runs one row alone: what comes out is that row of the batch.

    Where it is not, the row is held against itself among copies, at its own place of as large a
    batch: there a model that treats each row by itself computes the very same. Where only the row
    alone differs, rounding may have broken a tie: a runtime adds up in another order for one row.
    It does so from place to place as well, so that equal rows of one batch tell how far that leads.

    Args:
        art: the artefact.
        named: what it was fed.
        result: what it gave.
        policy: what it computes in.
        asked: what it was asked for, a row a sample.
        is_undecided: output -> whether two of what it could explain of the row are as good as each
            other, so that rounding says which it does.
        logits: what explanations may be of beside the predictions: differences of large ones are
            rounded by more than their probabilities tell.

    Raises:
        FoundError: it is another.
    """
    if any(spec.shape[0] is not None for spec in art.inputs):
        return

    def copies(count: int) -> Any:
        """Returns what comes out of so many copies of the row."""
        feeds = ({name: np.repeat(x[:1], count, axis=0) for name, x in f.items()} for f in fed)
        first, more = feeds
        return art.run(first, **more)

    fed = (named, asked)
    alone = copies(1)
    # Attributions by differences of scores are rounded as these are.
    made = [result[spec.name].array for spec in art.manifest.predictions]
    scores = [np.abs(each[0]) for each in (*made, *logits)]
    least = SMALL_PART * max(float(np.nan_to_num(s, posinf=0).max(initial=0)) for s in scores)
    rows = len(next(iter(named.values())))
    among: Any = None
    beside: list[Any] = []
    for spec in art.outputs:
        if "batch" not in spec.axes[:1]:
            continue
        one, whole = (np.asarray(r[spec.name].array, np.float64) for r in (alone, result))
        most = GRADIENTS * max(limit(policy), limit(spec.dtype))
        # Scores that hardly differ make a faint map, as far off as where they differ.
        small = 1.0 if spec.unit == SHARE_OF_SCORES else least
        if spec.kind == COMPLETENESS:  # what is left of a sum of numbers that cancel
            parts = np.asarray(result[spec.detail["of"]].array[0], np.float64)
            small = max(small, float(np.abs(np.nan_to_num(parts)).sum()))
        if one.shape != whole[:1].shape:
            raise FoundError(f"{spec.kind} of a row alone is not that of the row in a batch")
        away = off(one, whole[:1], small)
        if away <= most:
            continue
        among = among or copies(rows)
        there = np.asarray(among[spec.name].array, np.float64)[:1]
        if off(there, whole[:1], small) > most:
            raise FoundError(f"{spec.kind} of a row among copies is not that of the row in a batch")
        beside = beside or [copies(count) for count in _COPIES]
        spread = _spread([np.asarray(r[spec.name].array) for r in beside], small)
        if away > _STEADY * spread and not is_undecided(spec):
            raise FoundError(f"{spec.kind} of a row alone is not that of the row in a batch")


def _spread(among_copies: Sequence[Array], least: float) -> float:
    """Returns how far equal rows of one batch are apart, at most."""
    wide = (rows.astype(np.float64) for rows in among_copies)
    return max(off(row, rows[0], least) for rows in wide for row in rows[1:])
