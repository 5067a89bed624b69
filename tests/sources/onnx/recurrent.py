"""Weights of one recurrent operator, `[direction, ...]`."""

WIDTH, HIDDEN = 3, 4
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def weights_of(kind, count, rng):
    """Returns an operator's inputs W, R and B, for numbers of `WIDTH` and states of `HIDDEN`.

    Args:
        kind: the operator.
        count: the number of directions.
        rng: what draws them.
    """
    rows = GATES[kind] * HIDDEN
    return {
        "w": rng.standard_normal((count, rows, WIDTH)),
        "r": 0.5 * rng.standard_normal((count, rows, HIDDEN)),
        "b": 0.2 * rng.standard_normal((count, 2 * rows)),
    }
