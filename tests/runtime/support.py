"""Artefacts made by hand, so that the runtime is tested without the compiler."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from probegen.artefact.manifest import (
    ONNX_METADATA_KEY,
    InputSpec,
    Manifest,
    OutputSpec,
    TargetSpec,
)
from probegen.runtime.result import Result, Run

IMAGE = ("batch", "height", "width", "channel")
HEIGHT, WIDTH, CHANNELS, CLASSES = 5, 7, 3, 4
SIZE = HEIGHT * WIDTH * CHANNELS
WEIGHTS = np.random.default_rng(3).normal(size=(SIZE, CLASSES)).astype(np.float32)
NAMES = ("ant", "bee", "cat", "dog")


def image_manifest(**changes):
    """The manifest of `image_model`."""
    of = TargetSpec("input", output="animal", logits=True, classes=CLASSES)
    outputs = (
        OutputSpec("animal", "prediction", "float32", (None, CLASSES), ("batch", "class")),
        OutputSpec(
            "input_gradient/image", "input_gradient", "float32", (None, HEIGHT, WIDTH, CHANNELS),
            IMAGE, input="image", target=of, method="d logit / d input",
        ),
        OutputSpec(
            "saliency/image", "saliency", "float32", (None, HEIGHT, WIDTH), IMAGE[:3],
            input="image", target=of, method="largest |d logit / d input| over the channels",
        ),
    )  # fmt: skip
    manifest = Manifest(
        inputs=(InputSpec("image", "float32", (None, HEIGHT, WIDTH, CHANNELS), IMAGE),),
        outputs=outputs,
        model={"name": "zoo", "class": "Sequential"},
        producer={"probegen": "0.1.0"},
        target_input=True,
        gate="required",
        class_names=NAMES,
    )
    return manifest.replace(**changes)


def image_model(manifest):
    """A linear classifier `softmax(flat(image) @ WEIGHTS)` with its true input gradient."""
    constants = {
        "weights": WEIGHTS,
        "rows": np.ascontiguousarray(WEIGHTS.T),
        "zero": np.array(0, np.int64),
        "shape": np.array([-1, HEIGHT, WIDTH, CHANNELS], np.int64),
        "last": np.array([3], np.int64),
    }
    node = helper.make_node
    forward = [
        node("Flatten", ["image"], ["flat"], axis=1),
        node("MatMul", ["flat", "weights"], ["logits"]),
        node("Softmax", ["logits"], ["animal"], axis=1),
    ]
    chosen = [node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0)]
    if manifest.target_input:
        chosen += [
            node("Cast", ["target"], ["wanted"], to=TensorProto.INT64),
            node("Less", ["wanted", "zero"], ["free"]),
            node("Where", ["free", "best", "wanted"], ["chosen"]),
        ]
    else:
        chosen += [node("Identity", ["best"], ["chosen"])]
    backward = [
        *chosen,
        node("Gather", ["rows", "chosen"], ["row"], axis=0),
        node("Reshape", ["row", "shape"], ["gradient"]),
        node("Abs", ["gradient"], ["size"]),
        node("ReduceMax", ["size", "last"], ["largest"], keepdims=0),
    ]
    explained = [spec.name for spec in manifest.explanations]
    if manifest.gate:
        nodes = [*forward, gated(backward, explained)]
    else:
        names = [node("Identity", [v], [n]) for v, n in zip(BACKWARD, explained, strict=True)]
        nodes = [*forward, *backward, *names]
    inputs = [info("image", TensorProto.FLOAT, manifest.inputs[0].shape)]
    if manifest.target_input:
        inputs.append(info("target", TensorProto.INT32, (None,)))
    if manifest.gate:
        inputs.append(info("explain", TensorProto.BOOL, ()))
    if manifest.gate == "optional":
        constants["explain"] = np.array(False)
    return model_of(nodes, inputs, manifest, constants)


BACKWARD = ("gradient", "largest")


def gated(backward, names):
    """An `If` over the backward nodes, whose other branch returns batches of size 0."""
    shapes = ((0, HEIGHT, WIDTH, CHANNELS), (0, HEIGHT, WIDTH))
    outputs = [
        info(v, TensorProto.FLOAT, (None, *s[1:])) for v, s in zip(BACKWARD, shapes, strict=True)
    ]
    empty = [
        helper.make_node(
            "Constant", [], [f"no_{v}"], value=numpy_helper.from_array(np.zeros(s, np.float32))
        )
        for v, s in zip(BACKWARD, shapes, strict=True)
    ]
    nothing = [info(f"no_{v}", TensorProto.FLOAT, s) for v, s in zip(BACKWARD, shapes, strict=True)]
    return helper.make_node(
        "If", ["explain"], names,
        then_branch=helper.make_graph(backward, "on", [], outputs),
        else_branch=helper.make_graph(empty, "off", [], nothing),
    )  # fmt: skip


def info(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes, inputs, manifest, constants=()):
    """A model of opset 18 with the manifest in its metadata (none where that is None)."""
    outputs = [info(o.name, TensorProto.FLOAT, o.shape) for o in manifest.outputs]
    stored = [numpy_helper.from_array(a, n) for n, a in dict(constants).items()]
    graph = helper.make_graph(nodes, "made_by_hand", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {ONNX_METADATA_KEY: manifest.to_json()})
    return model


def save_image_model(path, **changes):
    """Writes `image_model`; returns its path as text."""
    onnx.save(image_model(image_manifest(**changes)), path)
    return str(path)


def images(batch, seed=0):
    """Random images that fit `image_model`."""
    shape = (batch, HEIGHT, WIDTH, CHANNELS)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def result_of(inputs, outputs, target=None, **changes):
    """A result without any model.

    inputs: name -> (array, axes, keywords of InputSpec)
    outputs: name -> (array, kind, axes, keywords of OutputSpec)
    """
    given = {name: np.asarray(array) for name, (array, _, _) in inputs.items()}
    made = {name: np.asarray(array, np.float32) for name, (array, _, _, _) in outputs.items()}
    manifest = Manifest(
        inputs=tuple(
            InputSpec(n, str(given[n].dtype), (None, *given[n].shape[1:]), axes, **more)
            for n, (_, axes, more) in inputs.items()
        ),
        outputs=tuple(
            OutputSpec(n, kind, "float32", (None, *made[n].shape[1:]), axes, **more)
            for n, (_, kind, axes, more) in outputs.items()
        ),
        model={"name": "by hand"},
        target_input=target is not None,
    )
    return Result(Run(manifest.replace(**changes), given, target, "by_hand.onnx"), made)
