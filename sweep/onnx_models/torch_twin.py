"""Gradients of the convolutional files that packages ship, by a second computation in torch.

Differences do not see the gradient of an untrained network of this depth: it is 1e-12 of its score
in places. Here the nodes of the file are computed by torch, in single and in double precision, and
its autograd gives the gradient. Nothing is shared with the compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sweep.onnx_models.case import Array, Target


def gradients(path: Path, inputs: Mapping[str, Array], target: Target) -> dict[str, dict[str, Any]]:
    """Returns `"gradient32"` and `"gradient64"`, each by input, of the target's entries summed.

    Raises:
        KeyError: the file has an operator that is not in the table below.
    """
    import torch

    index = (target,) if isinstance(target, int) else target
    entries = (slice(None), *(slice(None) if i is None else i for i in index))
    found = {}
    for bits in (32, 64):
        kind = getattr(torch, f"float{bits}")
        given = {n: torch.tensor(x, dtype=kind, requires_grad=True) for n, x in inputs.items()}
        _computed(path, given, kind)[entries].sum().backward()
        found[f"gradient{bits}"] = {name: x.grad.numpy() for name, x in given.items()}
    return found


def _computed(path: Path, given: Mapping[str, Any], kind: Any) -> Any:
    """Returns the first output of a file, from its inputs as tensors."""
    import onnx
    import torch

    graph = onnx.load(str(path)).graph
    values = dict(given)
    for stored in graph.initializer:
        tensor = torch.tensor(onnx.numpy_helper.to_array(stored).copy())
        values[stored.name] = tensor.to(kind) if tensor.is_floating_point() else tensor
    for node in graph.node:
        options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        operands = [values[name] for name in node.input if name]
        values[node.output[0]] = _OPERATORS[node.op_type](options, *operands)
    return values[graph.output[0].name]


def _padded(x: Any, options: Mapping[str, Any], filled: float = 0.0) -> Any:
    from torch.nn import functional

    top, left, bottom, right = options.get("pads", (0, 0, 0, 0))
    return functional.pad(x, (left, right, top, bottom), value=filled)


def _conv(options: Mapping[str, Any], x: Any, *weights: Any) -> Any:
    from torch.nn import functional

    strides, spread = options.get("strides", (1, 1)), options.get("dilations", (1, 1))
    return functional.conv2d(
        _padded(x, options),
        *weights,
        stride=tuple(strides),
        dilation=tuple(spread),
        groups=options.get("group", 1),
    )


def _windows(options: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(options["kernel_shape"]), tuple(options.get("strides", (1, 1)))


def _max_pool(options: Mapping[str, Any], x: Any) -> Any:
    from torch.nn import functional

    return functional.max_pool2d(_padded(x, options, -1e30), *_windows(options))


def _average_pool(options: Mapping[str, Any], x: Any) -> Any:
    """Means over what lies inside of the picture, unless padding counts as well."""
    from torch.nn import functional

    means = functional.avg_pool2d(_padded(x, options), *_windows(options))
    if options.get("count_include_pad", 0):
        return means
    inside = _padded(x.detach() * 0 + 1, options)
    return means / functional.avg_pool2d(inside, *_windows(options))


def _normalised(
    options: Mapping[str, Any], x: Any, scale: Any, bias: Any, mean: Any, variance: Any
) -> Any:
    scale, bias, mean, variance = (v[:, None, None] for v in (scale, bias, mean, variance))
    return (x - mean) / (variance + options.get("epsilon", 1e-5)).sqrt() * scale + bias


def _local_response(options: Mapping[str, Any], x: Any) -> Any:
    from torch.nn import functional

    size, channels = options["size"], x.shape[1]
    before = (size - 1) // 2
    squares = functional.pad(x**2, (0, 0, 0, 0, before, size - 1 - before))
    total = sum(squares[:, i : i + channels] for i in range(size))
    alpha, beta = options.get("alpha", 1e-4), options.get("beta", 0.75)
    return x / (options.get("bias", 1.0) + alpha / size * total) ** beta


def _gemm(options: Mapping[str, Any], a: Any, b: Any, c: Any) -> Any:
    a, b = a.T if options.get("transA") else a, b.T if options.get("transB") else b
    return options.get("alpha", 1.0) * (a @ b) + options.get("beta", 1.0) * c


def _joined(options: Mapping[str, Any], *parts: Any) -> Any:
    import torch

    return torch.cat(parts, options["axis"])


def _reshaped(options: Mapping[str, Any], x: Any, sizes: Any) -> Any:
    del options
    return x.reshape([n or x.shape[i] for i, n in enumerate(sizes.tolist())])


def _unsqueezed(options: Mapping[str, Any], x: Any) -> Any:
    for axis in options["axes"]:
        x = x.unsqueeze(axis)
    return x


#: What these files are made of, at the operator sets that they are written in.
_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "Add": lambda _, x, y: x + y,
    "AveragePool": _average_pool,
    "BatchNormalization": _normalised,
    "Concat": _joined,
    "Conv": _conv,
    "Dropout": lambda _, x: x,
    "Flatten": lambda _, x: x.flatten(1),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _, x: x.mean((2, 3), keepdim=True),
    "LRN": _local_response,
    "MaxPool": _max_pool,
    "Mul": lambda _, x, y: x * y,
    "Relu": lambda _, x: x.relu(),
    "Reshape": _reshaped,
    "Softmax": lambda _, x: x.flatten(1).softmax(1).reshape(x.shape),
    "Sum": lambda _, *parts: sum(parts[1:], parts[0]),
    "Transpose": lambda options, x: x.permute(options["perm"]),
    "Unsqueeze": _unsqueezed,
}
