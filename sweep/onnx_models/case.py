"""What is swept: one ONNX file a case, how it comes about, and what it is compared with.

A case's folder holds `model.onnx`, `about.json` and `reference.npz`. The last has one run a batch
size, or a sample where the batch is fixed: `0/input/x`, `0/output/y`, and where the tool that
wrote the file can differentiate, `0/gradient32/x` and `0/gradient64/x`.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MODEL, ABOUT, REFERENCE = "model.onnx", "about.json", "reference.npz"
#: Environments that files are written in: the sweep's own, or the compiler's, with TensorFlow.
OWN, COMPILER = "sweep-onnx", "compiler"

#: An entry of an output behind the batch; None sums over an axis.
Target = int | tuple[int | None, ...]
Array = npt.NDArray[Any]


class AbsentError(Exception):
    """A case that cannot be written here; says why (a package without a build, no such option)."""


@dataclasses.dataclass(frozen=True)
class About:
    """What is to be asked of a file.

    Attributes:
        tool: what wrote the file.
        target: the entry that is explained.
        output: the output it is an entry of; None for the only one.
        wrt: the inputs that gradients are asked for.
        probes: names of the probes beside the input gradient, for example `"GradCAM"`.
        batched: whether the first axis of inputs and outputs is the batch; where not, the target
            is an index of the whole output.
        fixed: compile for a batch of one, as the file means nothing else.
        limit: what the gradient may be away from its reference, where that is not of the same
            function to the last digit.
    """

    tool: str
    target: Target
    output: str | None = None
    wrt: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    batched: bool = True
    fixed: bool = False
    limit: float | None = None

    def save(self, folder: Path) -> None:
        """Writes it into a case's folder."""
        (folder / ABOUT).write_text(json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def load(cls, folder: Path) -> About:
        """Reads it from a case's folder."""
        data: dict[str, Any] = json.loads((folder / ABOUT).read_text())
        lists = {name: tuple(v) for name, v in data.items() if isinstance(v, list)}
        return cls(**{**data, **lists})


@dataclasses.dataclass(frozen=True)
class Run:
    """One call of the model: what goes in, what comes out, and what its gradients are.

    Attributes:
        inputs: name -> array.
        outputs: name -> array, as the tool that wrote the file computes it; may be empty.
        gradients: `"gradient32"` and `"gradient64"` -> input -> gradient of the target's entry,
            summed over the batch; empty where the tool does not differentiate.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    gradients: Mapping[str, Mapping[str, Array]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Case:
    """An ONNX file to be made and compiled.

    Attributes:
        name: what it goes by in the table; starts with its family, `"torchvision: resnet18"`.
        write: puts `model.onnx`, `about.json` and `reference.npz` into a folder.
        home: the environment that `write` runs in.
        limit: seconds after which making or comparing it is given up.
    """

    name: str
    write: Callable[[Path], None]
    home: str = OWN
    limit: int = 300

    @property
    def family(self) -> str:
        """What stands before the colon of its name."""
        return self.name.partition(":")[0]

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return "".join(c if c.isalnum() else "_" for c in self.name)


def save_runs(folder: Path, runs: Sequence[Run]) -> None:
    """Writes runs into a case's folder."""
    held: dict[str, Array] = {}
    for number, run in enumerate(runs):
        parts = {"input": run.inputs, "output": run.outputs, **run.gradients}
        for part, arrays in parts.items():
            held.update({f"{number}/{part}/{name}": array for name, array in arrays.items()})
    with zipfile.ZipFile(folder / REFERENCE, "w") as archive:  # np.savez takes names of arguments
        for name, array in held.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.asanyarray(array))


def load_runs(folder: Path) -> list[Run]:
    """Reads the runs of a case's folder."""
    with np.load(folder / REFERENCE) as held:
        parts: dict[int, dict[str, dict[str, Array]]] = {}
        for key in held.files:
            number, part, name = key.split("/", 2)
            parts.setdefault(int(number), {}).setdefault(part, {})[name] = held[key]
    return [Run(p.pop("input"), p.pop("output", {}), p) for _, p in sorted(parts.items())]
