"""TCAV: for how many samples a concept speaks for a class, and whether that is chance.

Kim et al. 2018, sec. 3.3 and 3.4. The directional derivatives come from the artefact
(`pg.ConceptSensitivity(layer, vectors)`), a number for each sample and vector.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from probegen.artefact.manifest import OutputSpec
from probegen.artefact.rows import BATCH
from probegen.errors import InputError, did_you_mean
from probegen.runtime.arguments import counted
from probegen.runtime.inputs import Array, Inputs
from probegen.runtime.loaded import Artefact
from probegen.runtime.outputs import values_of
from probegen.runtime.target import Target
from probegen.text import indented_table

CONCEPT = "concept"
#: Below this probability of chance a score is called significant.
_LEVEL = 0.05


@dataclasses.dataclass(frozen=True, eq=False)
class ConceptScore:
    """The TCAV score of one concept.

    Attributes:
        name: the concept's.
        scores: the share of samples with a positive derivative, one a vector, `[vector]`.
        p_value: the probability of scores as far from those of random vectors by chance alone:
            Student's two-sided t-test of two samples of equal variance. None where there are fewer
            than two vectors of the concept or of chance.
    """

    name: str
    scores: Array
    p_value: float | None

    @property
    def score(self) -> float:
        """The mean of the scores."""
        return float(self.scores.mean())

    @property
    def significant(self) -> bool | None:
        """Whether chance alone is improbable (p below 0.05); None where that was not tested."""
        return None if self.p_value is None else self.p_value < _LEVEL


@dataclasses.dataclass(frozen=True, eq=False)
class ConceptScores(Mapping[str, ConceptScore]):
    """The scores of all concepts by name. `numpy.asarray(scores)` holds their means.

    Attributes:
        concepts: a score for each.
        random_scores: of the random vectors, `[vector]`, perhaps none.
    """

    concepts: tuple[ConceptScore, ...]
    random_scores: Array

    def __getitem__(self, name: str) -> ConceptScore:
        for concept in self.concepts:
            if concept.name == name:
                return concept
        known = [concept.name for concept in self.concepts]
        raise KeyError(f"no concept {name!r}.{did_you_mean(str(name), known)}")

    def __iter__(self) -> Iterator[str]:
        return (concept.name for concept in self.concepts)

    def __len__(self) -> int:
        return len(self.concepts)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array([concept.score for concept in self.concepts], dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        rows = [(c.name, f"{c.score:.3f}", str(len(c.scores)), *_tested(c)) for c in self.concepts]
        columns = ("concept", "score", "vectors", "p", "significant")
        return "TCAV\n" + indented_table(columns, rows)


def _tested(concept: ConceptScore) -> tuple[str, str]:
    if concept.p_value is None:
        return "", "not tested"
    return f"{concept.p_value:.3g}", "yes" if concept.significant else "no"


def tcav(
    artefact: Artefact,
    inputs: Inputs,
    output: str | None = None,
    *,
    concepts: Mapping[str, Sequence[int]] | Sequence[str] | None = None,
    random: Sequence[int] = (),
    target: Target | None = None,
    batch_size: int | None = None,
) -> ConceptScores:
    """Returns the share of samples of a class for which each concept speaks for the class.

    A score is tested against those of random vectors: vectors from one random set of examples to
    another, compiled into the artefact beside those of the concept.

    Args:
        artefact: compiled with `pg.ConceptSensitivity(layer, vectors)`.
        inputs: samples of the class, as `Artefact.run` takes them.
        output: name of the derivatives, `[batch, concept]`; may be left out where there is one.
        concepts: which vectors are of which concept, by name: `{"striped": [0, 1, 2]}`, one for
            each set of counter-examples; or names, one a vector that is not random. By default each
            vector that is not random is a concept of its own, called as the probe called it.
        random: which vectors are random ones.
        target: the class, where the artefact takes a target.
        batch_size: how many samples are run at once; by default all.

    Returns:
        The scores by name.

    Raises:
        InputError: there is no such output, a vector is named that does not exist or twice, a
            derivative is not finite, or the inputs do not fit.
    """
    spec = _derivatives(artefact, output)
    slopes = values_of(artefact, spec, inputs, batch_size, target=target)
    if not np.isfinite(slopes).all():
        raise InputError(f"the derivatives {spec.name!r} are not all finite.")
    shares = (slopes > 0).mean(0)
    if concepts is None and spec.detail.get("names"):
        called = [str(name) for name in spec.detail["names"]]
        concepts = [name for i, name in enumerate(called) if i not in set(random)]
    chance, named = _named(concepts, random, len(shares))
    by_chance = shares[chance]
    found = tuple(
        ConceptScore(name, shares[rows], _p_value(shares[rows], by_chance))
        for name, rows in named.items()
    )
    return ConceptScores(found, by_chance)


def _derivatives(artefact: Artefact, output: str | None) -> OutputSpec:
    able = [spec for spec in artefact.outputs if sorted(spec.axes) == sorted((BATCH, CONCEPT))]
    names = [spec.name for spec in able]
    if not able:
        raise InputError(
            f"{artefact.path!r} gives out no derivatives along concepts. Compile it with "
            "pg.ConceptSensitivity(layer, vectors)."
        )
    if output is None and len(able) > 1:
        raise InputError(f"say which layer is meant: output=, one of {', '.join(names)}.")
    if output is not None and output not in names:
        raise InputError(
            f"{output!r} holds no derivatives along concepts.{did_you_mean(output, names)}"
        )
    return able[0] if output is None else able[names.index(output)]


def _named(
    concepts: Any, random: Sequence[int], count: int
) -> tuple[list[int], dict[str, list[int]]]:
    """Returns the vectors of chance, and those of each concept."""
    chance = _rows("random", random, count)
    rest = [i for i in range(count) if i not in chance]
    if concepts is None:
        return chance, {f"{CONCEPT} {i}": [i] for i in rest}
    if isinstance(concepts, Mapping):
        named = {str(name): _rows(f"concepts[{name!r}]", rows, count) for name, rows in
                 concepts.items()}  # fmt: skip
        used = [i for rows in (chance, *named.values()) for i in rows]
        twice = [i for i in used if used.count(i) > 1]
        if twice:
            raise InputError(f"the vector {twice[0]} is named twice.")
        empty = [name for name, rows in named.items() if not rows]
        if empty:
            raise InputError(f"the concept {empty[0]!r} has no vectors.")
        return chance, named
    names = [concepts] if isinstance(concepts, str) else [str(name) for name in concepts]
    if len(names) != len(rest) or len(set(names)) < len(names):
        raise InputError(
            f"concepts names {names}; there are {len(rest)} vectors that are not random, each of "
            "which needs a name of its own."
        )
    return chance, {name: [i] for name, i in zip(names, rest, strict=True)}


def _rows(what: str, given: Any, count: int) -> list[int]:
    try:
        rows = [counted(what, i, at_least=0) for i in given]
    except TypeError:
        raise InputError(f"{what} is {given!r}; it takes a list of indices of vectors.") from None
    wrong = [i for i in rows if i >= count]
    if wrong or len(set(rows)) < len(rows):
        raise InputError(f"{what} is {rows}; the artefact has the vectors 0 to {count - 1}.")
    return rows


# -- Student's t-test --------------------------------------------------------------------------


def _p_value(one: Array, other: Array) -> float | None:
    """Returns the two-sided probability that two samples come from one mean by chance."""
    if len(one) < 2 or len(other) < 2:
        return None
    freedom = len(one) + len(other) - 2
    pooled = (one.var() * len(one) + other.var() * len(other)) / freedom
    difference = float(one.mean() - other.mean())
    if pooled <= 0:  # all alike in both
        return 1.0 if difference == 0 else 0.0
    square = difference**2 / (pooled * (1 / len(one) + 1 / len(other)))
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + square))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Returns the regularised incomplete beta function by its continued fraction.

    Press et al., "Numerical Recipes", sec. 6.4, by Lentz's method.
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # where the fraction of the other side is the fast one
        return 1 - incomplete_beta(b, a, 1 - x)
    tiny = 1e-300
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
        + a * math.log(x) + b * math.log1p(-x)
    )  # fmt: skip
    c, d, value = 1.0, 0.0, 1.0
    for step in range(400):
        m = step // 2
        if step == 0:
            term = 1.0
        elif step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / _off_zero(1 + term * d, tiny)
        c = _off_zero(1 + term / c, tiny)
        value *= c * d
        if abs(c * d - 1) < 1e-15 and step:
            break
    return front * (value - 1) / a


def _off_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
