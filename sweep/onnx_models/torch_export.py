"""Writes a torch module as ONNX with either of torch's exporters, and its autograd beside it."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sweep.onnx_models.case import MODEL, About, Array, Case, Run, Target, save_runs

#: torch's two exporters: by tracing the module's Python (`torch.export`), or by TorchScript.
DYNAMO, SCRIPT = "dynamo", "script"
SEED = 7


@dataclasses.dataclass(frozen=True)
class Input:
    """One input of a module.

    Attributes:
        name: of the input.
        shape: sizes; a name stands for an open size, whose values `Module.sizes` has.
        below: for integers: drawn from 0 to this, without it. None for floating numbers.
        kind: the element type.
    """

    name: str
    shape: tuple[int | str, ...]
    below: int | None = None
    kind: str = "float32"

    def draw(self, rng: np.random.Generator, sizes: Mapping[str, int]) -> Array:
        """Returns random content for one run."""
        shape = [sizes[s] if isinstance(s, str) else s for s in self.shape]
        if self.below is not None:
            return rng.integers(0, self.below, shape)
        if self.kind == "mask":  # ones, and zeros at the end of the last row
            mask = np.ones(shape, np.int64)
            mask[-1, -2:] = 0
            return mask
        return rng.normal(size=shape).astype(self.kind)


@dataclasses.dataclass(frozen=True)
class Module:
    """A torch module, and how it is to be written.

    Attributes:
        make: returns the module; called with torch's seed set.
        inputs: what it takes, in the order of its arguments.
        target: the entry of the first output that is explained.
        exporter: which of the two.
        opset: the operator set; None for the exporter's own.
        sizes: name of an open size -> its value in each run, of which the first is traced.
        pick: what the module returns -> the tensors that become outputs.
        outputs: their names.
        probes: asked for beside the input gradient.
        embedding: module -> the submodules of which one makes of the first input, which holds
            integers, what is explained in its stead.
        batched: whether the first axis is the batch.
        script: compile the module by `torch.jit.script` instead of tracing it.
        named: call the module with arguments named as its inputs are.
        autograd: False where torch's autograd is no witness, as it leaves a part of the derivative
            out: differences of the file's scores are taken instead.
        options: further arguments of `torch.onnx.export`.
    """

    make: Callable[[], Any]
    inputs: tuple[Input, ...]
    target: Target = 3
    exporter: str = DYNAMO
    opset: int | None = 18
    sizes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    pick: Callable[[Any], Any] = lambda out: out
    outputs: tuple[str, ...] = ("logits",)
    probes: tuple[str, ...] = ()
    embedding: Callable[[Any], Sequence[Any]] | None = None
    batched: bool = True
    script: bool = False
    named: bool = False
    autograd: bool = True
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def torch_case(name: str, module: Module, limit: int = 300) -> Case:
    """Returns the case of a torch module; the exporter and the operator set stand in its name."""
    how = f"{module.exporter}, opset {module.opset or 'default'}"
    return Case(f"{name} ({how})", functools.partial(write, module), limit=limit)


def variants(name: str, module: Module, limit: int = 300) -> Iterator[Case]:
    """Yields a module by both exporters."""
    for exporter in (DYNAMO, SCRIPT):
        yield torch_case(name, dataclasses.replace(module, exporter=exporter), limit)


def image(size: int = 64, batch: int | str = "batch", channels: int = 3) -> tuple[Input, ...]:
    """Returns the input of an image model."""
    return (Input("image", (batch, channels, size, size)),)


def open_image(channels: int = 3) -> tuple[Input, ...]:
    """Returns the input of an image model whose height and width are open."""
    return (Input("image", ("batch", channels, "height", "width")),)


BATCH = {"batch": (2, 3)}
OPEN_IMAGE = {"batch": (2, 3), "height": (64, 96), "width": (96, 64)}


def write(module: Module, folder: Path) -> None:
    """Makes the module, exports it, and writes its outputs and gradients on each run."""
    import torch

    warnings.simplefilter("ignore")
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    # Its fused encoder layer, which no exporter knows, and which has no gradient.
    torch.backends.mha.set_fastpath_enabled(False)
    model = module.make()
    samples = [torch.from_numpy(a) for a in _draw(module, 0).values()]
    steady(model, samples if module.batched else None)
    # Some keep between calls what they make of their weights, and its history with it.
    model.requires_grad_(False)
    called = _wrapped(model, module)
    runs = list(_runs(module, model, called))
    given = tuple(torch.from_numpy(a.copy()) for a in runs[0].inputs.values())
    _export(module, called, given, folder / MODEL)
    save_runs(folder, runs)
    About(
        tool=f"torch {torch.__version__.partition('+')[0]}, {module.exporter}",
        target=module.target,
        output=module.outputs[0] if len(module.outputs) > 1 else None,
        wrt=tuple(i.name for i in _explained(module)),
        probes=module.probes,
        batched=module.batched,
    ).save(folder)


def _explained(module: Module) -> list[Input]:
    if module.embedding is not None:
        return [module.inputs[0]]
    return [i for i in module.inputs if i.below is None and i.kind != "mask"]


def _draw(module: Module, number: int) -> dict[str, Array]:
    rng = np.random.default_rng(SEED + number)
    sizes = {name: values[number % len(values)] for name, values in module.sizes.items()}
    return {i.name: i.draw(rng, sizes) for i in module.inputs}


def _runs(module: Module, model: Any, called: Any) -> Iterator[Run]:
    import torch

    for number in range(max([2, *map(len, module.sizes.values())])):
        inputs = _draw(module, number)
        outputs, single = _gradients(module, model, called, inputs, torch.float32)
        gradients = {"gradient32": single}
        try:
            wide_model = copy.deepcopy(model).double().eval()
            wide = _wrapped(wide_model, module)
            gradients["gradient64"] = _gradients(module, wide_model, wide, inputs, torch.float64)[1]
        except (RuntimeError, TypeError, AttributeError):  # casts to float32 stand in its code
            pass
        yield Run(inputs, outputs, gradients if module.autograd else {})


def _gradients(
    module: Module, model: Any, called: Any, inputs: Mapping[str, Array], kind: Any
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Returns the outputs, and the gradients of the target's entry summed over the batch."""
    import torch

    tensors = {name: torch.from_numpy(a.copy()) for name, a in inputs.items()}
    tensors = {n: t.to(kind) if t.is_floating_point() else t for n, t in tensors.items()}
    wanted: dict[str, Any] = {}
    hooks = []
    if module.embedding is None:
        wanted = {i.name: tensors[i.name].requires_grad_() for i in _explained(module)}
    else:

        def hold(_: Any, __: Any, result: Any) -> None:
            result.requires_grad_()
            wanted[module.inputs[0].name] = result

        hooks = [m.register_forward_hook(hold) for m in module.embedding(model)]
    results = called(*tensors.values())
    scalar(results[0], module.target, module.batched).backward()
    for hook in hooks:
        hook.remove()
    if not wanted:
        raise ValueError("the module looks nothing up in the table that was named")
    outputs = {
        name: result.detach().numpy() for name, result in zip(module.outputs, results, strict=True)
    }
    found = {
        name: np.zeros(t.shape) if t.grad is None else t.grad.numpy() for name, t in wanted.items()
    }
    return outputs, found


def scalar(output: Any, target: Target, batched: bool) -> Any:
    """Returns the sum of a target's entries over an output; for arrays and tensors alike."""
    if isinstance(target, int):
        return output[..., target].sum()
    index = tuple(slice(None) if i is None else i for i in target)
    return output[(slice(None), *index) if batched else index].sum()


def steady(model: Any, samples: Sequence[Any] | None) -> None:
    """Moves a fresh model away from the values it starts with, which training would leave too.

    Statistics of batch normalisation are taken from the samples, and weights that hold one
    constant (scales, biases, heads that start at zero) get a spread. Without samples the statistics
    stay.
    """
    import torch

    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() > 1 and parameter.unique().numel() == 1:
                spread = torch.rand(parameter.shape, generator=generator)
                parameter.add_(0.05 + 0.25 * spread if parameter.ndim == 1 else spread - 0.5)
        norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
        model.eval()
        if norms and samples is not None:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None
                norm.train()
            # A size of 1 a channel has no variance: more rows make up for it.
            several = [torch.cat([s] * 4) for s in samples]
            several = [
                s + 0.3 * torch.randn(s.shape, generator=generator) if s.is_floating_point() else s
                for s in several
            ]
            model(*several)
    model.eval()


def _wrapped(model: Any, module: Module) -> Any:
    import torch

    names = [i.name for i in module.inputs]

    class Picked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            if module.named:
                found = self.model(**dict(zip(names, tensors, strict=True)))
            else:
                found = self.model(*tensors)
            found = module.pick(found)
            return found if isinstance(found, tuple | list) else (found,)

    return Picked().eval()


def _export(module: Module, called: Any, given: Sequence[Any], path: Path) -> None:
    import torch

    names = [i.name for i in module.inputs]
    axes = {
        i.name: {axis: size for axis, size in enumerate(i.shape) if isinstance(size, str)}
        for i in module.inputs
    }
    options: dict[str, Any] = {"input_names": names, "output_names": list(module.outputs)}
    if module.opset is not None:
        options["opset_version"] = module.opset
    if module.exporter == DYNAMO:
        options |= {"dynamo": True, "external_data": False, "verbose": False}
        if any(axes.values()):
            options["dynamic_shapes"] = (tuple(axes[name] for name in names),)
    else:
        options["dynamo"] = False
        if any(axes.values()):
            options["dynamic_axes"] = {n: a for n, a in axes.items() if a} | {
                name: {0: "batch"} for name in module.outputs if module.batched
            }
    exported = called
    if module.script:
        exported = torch.jit.script(called.model)
    known = inspect.signature(torch.onnx.export).parameters
    options |= module.options
    with torch.no_grad():
        torch.onnx.export(
            exported, tuple(given), str(path), **{k: v for k, v in options.items() if k in known}
        )
