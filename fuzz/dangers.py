"""What ends the process in TensorFlow itself, refused before it is called."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from keras.src import backend


def avoid_dangers() -> None:
    """Lets Keras refuse what TensorFlow dies of; a second call changes nothing."""
    pool = backend.nn.adaptive_max_pool
    if not hasattr(pool, "__wrapped__"):
        backend.nn.adaptive_max_pool = _of_enough(pool)


def _of_enough(pool: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(pool)
    def adaptive_max_pool(inputs: Any, output_size: Any, data_format: Any = None) -> Any:
        """Adaptive pooling; of windows that are larger than the input TensorFlow dies.

        Keras pools by two windows, of which the larger one has a position more than are needed.
        A graph of such a model cannot be made either (`predict` refuses it).
        """
        rank = len(inputs.shape) - 2
        wanted = [output_size] * rank if isinstance(output_size, int) else list(output_size)
        first = backend.standardize_data_format(data_format) == "channels_first"
        sizes = inputs.shape[2:] if first else inputs.shape[1:-1]
        for size, most in zip(wanted, sizes, strict=True):
            if size is None or most is None:
                continue
            larger = math.ceil(most / size) + 1
            if size > most or larger > most:
                raise ValueError(f"{size} maxima of {most} positions end the process")
        return pool(inputs, output_size, data_format)

    return adaptive_max_pool
