"""Concept vectors: directions in a layer's activations that tell examples from others.

Kim et al. 2018, "Interpretability beyond feature attribution" (TCAV). A vector is the normal of a
linear classifier of activations, which the artefact itself gives out (`pg.Activations(layer)`).
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probegen.artefact.manifest import DRAWN_AS_ACTIVATION, OutputSpec
from probegen.errors import InputError
from probegen.runtime.arguments import positive
from probegen.runtime.inputs import Array, Inputs
from probegen.runtime.loaded import Artefact
from probegen.runtime.outputs import named_output, values_of
from probegen.runtime.read import read_input
from probegen.text import amount

#: A folder of files, or what `Artefact.run` takes.
Examples = str | Path | Inputs

#: Steps of the solver that finds the classifier.
_ITERATIONS = 2000


def concept_vector(
    artefact: Artefact,
    output: str,
    examples: Examples,
    counter_examples: Examples | Sequence[Examples],
    *,
    strength: float = 1.0,
    scale: float | None = None,
    batch_size: int | None = None,
    least_accuracy: float | None = None,
) -> Array:
    """Returns the direction from counter-examples to examples of a concept.

    The normal of a logistic regression (scikit-learn, deterministic), of length 1.

    Args:
        artefact: gives out the activations of the layer.
        output: the output that holds them, such as `"activation/conv5"`.
        examples: of the concept: a folder of files (read as `probegen run` reads them), or arrays
            as `Artefact.run` takes them.
        counter_examples: others, such as random pictures; a list of such sets gives a vector for
            each, which is what `tcav` tests for significance. A list of strings or paths is a
            list of folders, a list of arrays one of sets (where a model has one input).
        strength: of the regularisation (L2); the larger, the less single examples count.
        scale: multiplies the values of floating inputs that are read from files, such as 1/255.
        batch_size: how many examples are run at once; by default all.
        least_accuracy: refuse a classifier whose share of right answers for examples that it has
            not seen (three folds) is below this; half is what chance gives.

    Returns:
        Float32 `[concept, ...]`: a row for each set of counter-examples, of the shape of the
        activations without the batch: what `pg.ConceptSensitivity(layer, vectors)` takes.

    Raises:
        InputError: there is no such output, the examples do not fit or are too few, their
            activations are alike or not finite, an argument does not fit, or scikit-learn is not
            installed.
    """
    force = positive("strength", strength)
    least = None if least_accuracy is None else positive("least_accuracy", least_accuracy, 1.0)
    spec = _activation(artefact, output)
    learner = _learner()
    fold = 3 if least is not None else 1

    def activations(what: str, given: Examples) -> Array:
        return _activations(artefact, spec, what, given, scale, batch_size, fold)

    concept = activations("examples", examples)
    sets = _sets(artefact, counter_examples)
    vectors = []
    for i, given in enumerate(sets):
        what = "counter_examples" if len(sets) == 1 else f"counter_examples[{i}]"
        others = activations(what, given)
        if others.shape[1:] != concept.shape[1:]:
            raise InputError(
                f"the activations {output!r} of examples have the shape {concept.shape[1:]}, those "
                f"of {what} {others.shape[1:]}; give all inputs one size."
            )
        vectors.append(_vector(learner, concept, others, force, least, what))
    return np.stack(vectors).astype(np.float32)


def _activation(artefact: Artefact, output: str) -> OutputSpec:
    able = [spec for spec in artefact.outputs if spec.draw == DRAWN_AS_ACTIVATION]
    advice = 'Compile the artefact with pg.Activations("the layer").'
    return named_output(artefact, output, able, "holds no activations.", advice)


def _sets(artefact: Artefact, given: Any) -> list[Any]:
    """Returns the sets of counter-examples."""
    if isinstance(given, list | tuple) and given:
        paths = all(isinstance(one, str | Path) for one in given)
        maps = all(isinstance(one, Mapping) for one in given)
        rank = len(artefact.inputs[0].shape)
        arrays = len(artefact.inputs) == 1 and all(np.ndim(one) == rank for one in given)
        if paths or maps or arrays:
            return list(given)
    return [given]


def _activations(
    artefact: Artefact,
    spec: OutputSpec,
    what: str,
    given: Examples,
    scale: float | None,
    batch_size: int | None,
    least: int,
) -> Array:
    """Returns the activations of examples, float64 `[example, ...]`."""
    feed: Any = given
    if isinstance(given, str | Path):
        if not Path(given).exists():
            raise InputError(f"{what}: there is no folder {str(given)!r}.")
        feed = read_input(Path(given), artefact.manifest, scale=scale).feed
    values = values_of(artefact, spec, feed, batch_size)
    if len(values) < least:
        raise InputError(
            f"{what} holds {amount(len(values), 'sample')}; at least {least} are needed."
        )
    if not np.isfinite(values).all():
        raise InputError(f"{what}: the activations {spec.name!r} are not all finite.")
    return values


def _vector(
    learner: Any, concept: Array, others: Array, strength: float, least: float | None, what: str
) -> Array:
    """Returns the normal of a classifier, of length 1."""
    both = np.concatenate([concept, others])
    flat = both.reshape(len(both), -1)
    if (flat == flat[0]).all():
        raise InputError(
            f"the activations of examples and {what} are all the same: there is no direction from "
            "one to the other. Choose another layer, or examples that differ."
        )
    # Brought to one spread, so that the regularisation does not depend on the layer's unit.
    middle, spread = flat.mean(0), float(flat.std()) or 1.0
    points, classes = (flat - middle) / spread, np.repeat([1, 0], [len(concept), len(others)])

    def fitted(rows: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of steps that it would still make
            model = learner(C=1 / strength, max_iter=_ITERATIONS, class_weight="balanced")
            return model.fit(points[rows], classes[rows])

    if least is not None:
        accuracy = _accuracy(fitted, points, classes)
        if accuracy < least:
            raise InputError(
                f"a classifier tells examples from {what} in {accuracy:.0%} of the cases that it "
                f"has not seen, and least_accuracy is {least:.0%}: this layer does not hold the "
                "concept, or there are too few examples."
            )
    normal = np.asarray(fitted(slice(None)).coef_[0], np.float64)
    length = float(np.linalg.norm(normal))
    if not length > 0:
        raise InputError(f"examples and {what} cannot be told apart by their activations.")
    return (normal / length).reshape(concept.shape[1:])


def _accuracy(fitted: Any, points: Array, classes: Array) -> float:
    """Returns the share of right answers over three folds, both classes counting alike."""
    order = np.concatenate([np.arange(n) for n in np.bincount(classes)[::-1]]) % 3
    right = np.zeros(len(classes), bool)
    for fold in range(3):
        held = order == fold
        right[held] = fitted(~held).predict(points[held]) == classes[held]
    return float(np.mean([right[classes == c].mean() for c in (0, 1)]))


def _learner() -> Any:
    try:
        return importlib.import_module("sklearn.linear_model").LogisticRegression
    except ImportError as error:
        raise InputError(
            "concept vectors are found by scikit-learn, which is not installed: "
            "pip install 'probegen[concepts]'"
        ) from error
