"""Attributions of tabular features: bars sorted by magnitude."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.runtime.axes import FEATURES
from probegen.runtime.plot import charts
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.style import number
from probegen.runtime.plot.view import View

Array = npt.NDArray[Any]


def fits(view: View) -> bool:
    """Tells whether this is an attribution to the features of a vector."""
    return view.spec.is_attribution and view.array.ndim == 1 and not view.space and not view.steps


def plan(view: View) -> Picture:
    """Plans one bar a feature, the largest first, named with the feature's value."""
    source, values = view.source, view.array.ravel()
    # The numbers of an embedding are no features, however many there are.
    named = view.axes[0] in FEATURES
    names = (
        view.features(len(values)) if named else [f"{view.axes[0]} {i}" for i in range(len(values))]
    )
    if named and source is not None and source.array.size == len(values):
        given = np.asarray(source.array, np.float64).ravel()
        names = [f"{n} = {number(float(v))}" for n, v in zip(names, given, strict=True)]
    order = np.argsort(-np.abs(np.nan_to_num(values)), kind="stable")[: view.labels.top]
    notes: tuple[str, ...] = ()
    if len(order) < len(values):
        notes = (f"showing the {len(order)} largest of {len(values)} features",)
    draw = functools.partial(
        charts.draw_bars, values=values[order], names=[names[i] for i in order],
        title=view.quantity, colours=charts.by_sign(values[order], view.signed),
    )  # fmt: skip
    return Picture(view.title, charts.CHART_WIDTH, charts.bars_height(len(order)), draw, notes)
