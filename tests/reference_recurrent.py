"""Recurrent layers in numpy, written step by step from the ONNX specification.

Gradients of these are taken by the complex step (Squire and Trapp, 1998), which is exact to
rounding: d f(x) = Im f(x + i h) / h with a tiny h. So the twins share no line of reasoning
with the rules they judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

Array = np.ndarray

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
    "Relu": lambda x: np.where(x.real > 0, x, 0 * x),
}


def lstm(
    x: Array,
    w: Array,
    r: Array,
    *,
    b: Array | None = None,
    h0: Array | None = None,
    c0: Array | None = None,
    direction: str = "forward",
    added: Array | None = None,
    activations: Sequence[str] = ("Sigmoid", "Tanh", "Tanh"),
) -> tuple[Array, Array, Array]:
    """Returns Y, Y_h, Y_c of the ONNX operator LSTM with `layout=0`.

    `added` is added to the hidden states, `[time, directions, batch, hidden]`; so of the others.
    """
    f, g, h = (ACTIVATIONS[name] for name in activations)

    def step(x_t: Array, states: list[Array], w: Array, r: Array, b: Array) -> list[Array]:
        hidden, cell = states
        wb, rb = np.split(b, 2)
        i_t, o_t, f_t, c_t = np.split(x_t @ w.T + wb + hidden @ r.T + rb, 4, axis=-1)
        cell = f(f_t) * cell + f(i_t) * g(c_t)
        return [f(o_t) * h(cell), cell]

    y, (y_h, y_c) = _layer(
        step, 4, x=x, w=w, r=r, b=b, initial=[h0, c0], direction=direction, added=added
    )
    return y, y_h, y_c


def gru(
    x: Array,
    w: Array,
    r: Array,
    *,
    b: Array | None = None,
    h0: Array | None = None,
    direction: str = "forward",
    added: Array | None = None,
    activations: Sequence[str] = ("Sigmoid", "Tanh"),
    linear_before_reset: int = 0,
) -> tuple[Array, Array]:
    """Returns Y, Y_h of the ONNX operator GRU with `layout=0`."""
    f, g = (ACTIVATIONS[name] for name in activations)

    def step(x_t: Array, states: list[Array], w: Array, r: Array, b: Array) -> list[Array]:
        (hidden,) = states
        wz, wr, wh = np.split(w, 3)
        rz, rr, rh = np.split(r, 3)
        wbz, wbr, wbh, rbz, rbr, rbh = np.split(b, 6)
        z = f(x_t @ wz.T + hidden @ rz.T + wbz + rbz)
        reset = f(x_t @ wr.T + hidden @ rr.T + wbr + rbr)
        if linear_before_reset:
            candidate = g(x_t @ wh.T + reset * (hidden @ rh.T + rbh) + wbh)
        else:
            candidate = g(x_t @ wh.T + (reset * hidden) @ rh.T + rbh + wbh)
        return [(1 - z) * candidate + z * hidden]

    y, (y_h,) = _layer(step, 3, x=x, w=w, r=r, b=b, initial=[h0], direction=direction, added=added)
    return y, y_h


def rnn(
    x: Array,
    w: Array,
    r: Array,
    *,
    b: Array | None = None,
    h0: Array | None = None,
    direction: str = "forward",
    added: Array | None = None,
    activations: Sequence[str] = ("Tanh",),
) -> tuple[Array, Array]:
    """Returns Y, Y_h of the ONNX operator RNN with `layout=0`."""
    f = ACTIVATIONS[activations[0]]

    def step(x_t: Array, states: list[Array], w: Array, r: Array, b: Array) -> list[Array]:
        wb, rb = np.split(b, 2)
        return [f(x_t @ w.T + wb + states[0] @ r.T + rb)]

    y, (y_h,) = _layer(step, 1, x=x, w=w, r=r, b=b, initial=[h0], direction=direction, added=added)
    return y, y_h


def complex_step(
    function: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    feeds: Mapping[str, Array],
    dys: Mapping[str, Array],
    wrt: str,
) -> Array:
    """Returns d(sum of outputs * dys) / d(feeds[wrt]), exact to rounding."""
    tiny = 1e-30
    gradient = np.zeros(feeds[wrt].shape)
    for index in np.ndindex(*gradient.shape):
        moved = feeds[wrt].astype(np.complex128)
        moved[index] += tiny * 1j
        outputs = function({**feeds, wrt: moved})
        gradient[index] = sum((dy * outputs[k]).sum().imag for k, dy in dys.items()) / tiny
    return gradient


def _layer(
    step: Callable[..., list[Array]],
    gates: int,
    *,
    x: Array,
    w: Array,
    r: Array,
    b: Array | None,
    initial: Sequence[Array | None],
    direction: str,
    added: Array | None,
) -> tuple[Array, list[Array]]:
    hidden = r.shape[2]
    count = len(w)
    b = np.zeros((count, 2 * gates * hidden)) if b is None else b
    zeros = np.zeros((count, x.shape[1], hidden))
    orders = {"forward": [1], "reverse": [-1], "bidirectional": [1, -1]}[direction]
    ys, finals = [], []
    for k, order in enumerate(orders):
        states = [(zeros if s is None else s)[k] for s in initial]
        outputs = []
        for t in range(len(x))[::order]:
            states = step(x[t], states, w[k], r[k], b[k])
            states[0] = states[0] + (0 if added is None else added[t, k])
            outputs.append(states[0])
        ys.append(np.stack(outputs)[::order])
        finals.append(states)
    return np.stack(ys, axis=1), [np.stack(s) for s in zip(*finals, strict=True)]
