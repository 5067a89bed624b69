"""scikit-learn's neural networks and pipelines around them, by skl2onnx."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sweep.onnx_models.case import MODEL, About, Case, Run, Target, save_runs

_FEATURES, _SEED = 6, 5
#: What skl2onnx calls the output of a regressor.
_NUMBER = "variable"


def cases() -> Iterator[Case]:
    """Yields scikit-learn's estimators."""
    for name, (make, output, target) in _ESTIMATORS.items():
        for opset in (12, 18, 21):
            write = functools.partial(_write, make, output, target, opset)
            yield Case(f"scikit-learn: {name} (skl2onnx, opset {opset})", write)


def _write(make: Callable[[], Any], output: str, target: Target, opset: int, folder: Path) -> None:
    import importlib.metadata

    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType

    rng = np.random.default_rng(_SEED)
    x = rng.normal(size=(60, _FEATURES)).astype(np.float32)
    several = np.argmax(x[:, :4] + 0.1 * rng.normal(size=(60, 4)), axis=1)
    estimator = make()
    number = output == _NUMBER
    estimator.fit(x, np.tanh(x[:, :2]).sum(1) if number else several)
    # Classifiers give a table of probabilities, and not a list of dictionaries.
    options = {} if number else {"zipmap": False}
    model = skl2onnx.to_onnx(
        estimator,
        initial_types=[("x", FloatTensorType([None, _FEATURES]))],
        target_opset={"": opset, "ai.onnx.ml": 3},
        options=options,
    )
    (folder / MODEL).write_bytes(model.SerializeToString())
    save_runs(
        folder,
        [Run({"x": rng.normal(size=(n, _FEATURES)).astype(np.float32)}) for n in (2, 3)],
    )
    About(
        tool=f"skl2onnx {importlib.metadata.version('skl2onnx')}",
        target=target,
        output=output,
        wrt=("x",),
        probes=("Saliency",),
    ).save(folder)


def _classifier(**options: Any) -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((12, 8), max_iter=30, random_state=_SEED, **options)


def _scaled() -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), _classifier())


def _regressor() -> Any:
    from sklearn.neural_network import MLPRegressor

    return MLPRegressor(hidden_layer_sizes=(12, 8), max_iter=30, random_state=_SEED)


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression()


def _trees() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(5, random_state=_SEED)


def _support() -> Any:
    from sklearn.svm import SVC

    return SVC(probability=True, random_state=_SEED)


#: Name -> how it is made, its explained output, the target.
_ESTIMATORS: Mapping[str, tuple[Callable[[], Any], str, Target]] = {
    "MLPClassifier": (_classifier, "probabilities", 3),
    "MLPClassifier of tanh": (
        functools.partial(_classifier, activation="tanh"),
        "probabilities",
        3,
    ),
    "StandardScaler and MLPClassifier": (_scaled, "probabilities", 3),
    "MLPRegressor": (_regressor, _NUMBER, 0),
    "LogisticRegression": (_logistic, "probabilities", 3),
    "RandomForestClassifier": (_trees, "probabilities", 3),
    "SVC": (_support, "probabilities", 3),
}
