"""Chooses the next token of a text."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from probegen.errors import InputError
from probegen.runtime.arguments import counted, not_negative
from probegen.runtime.inputs import Array

#: Predictions that add up to one within this, none below zero, are probabilities.
_NEAR_ONE = 1e-3


@dataclasses.dataclass(frozen=True)
class Choice:
    """How a token is chosen.

    Attributes:
        temperature: what scores are divided by before a token is drawn; 0 takes the likeliest.
        top_k: draw among the k likeliest alone; None among all.
    """

    temperature: float = 0.0
    top_k: int | None = None

    @classmethod
    def of(cls, temperature: Any, top_k: Any) -> Choice:
        """Returns a choice after all checks.

        Raises:
            InputError: the temperature is below zero, or `top_k` below one, or there is a `top_k`
                and nothing is drawn.
        """
        heat = not_negative("temperature", temperature)
        if top_k is None:
            return cls(heat)
        best = counted("top_k", top_k)
        if not heat and best > 1:
            raise InputError(
                f"top_k={best} says among how many tokens one is drawn, and with temperature=0 "
                "none is drawn: pass a temperature, such as 1.0."
            )
        return cls(heat, best)

    @property
    def draws(self) -> bool:
        """Tells whether another token than the likeliest may come."""
        return self.temperature > 0 and self.top_k != 1

    def next(self, predicted: Array, rng: np.random.Generator) -> int:
        """Returns an id.

        Args:
            predicted: the model's prediction of each id, `[class]`: scores, or probabilities, whose
                logarithms are scores.
            rng: what numbers are drawn from: one a token.
        """
        if not self.draws:
            return int(np.argmax(predicted))
        scores = _scores(predicted)
        if self.top_k is not None and self.top_k < len(scores):
            # Of equal scores the first come in, as in the likeliest.
            left_out = np.argsort(-scores, kind="stable")[self.top_k :]
            scores[left_out] = -np.inf
        weights = np.exp((scores - scores.max()) / self.temperature)
        bounds = np.cumsum(weights)
        drawn = int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right"))
        return min(drawn, int(np.flatnonzero(weights)[-1]))


def _scores(predicted: Array) -> Array:
    wide = predicted.astype(np.float64)
    if (wide >= 0).all() and abs(wide.sum() - 1.0) < _NEAR_ONE:
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(wide))
    return wide
