"""Sequences and maps of tensors: taken out where a tensor says the same.

An artefact's outputs are tensors. skl2onnx ends classifiers with a `ZipMap`, which makes a list of
dictionaries from class to probability of the tensor of probabilities; that tensor becomes the
output instead, under the name of the file's output.
"""

from __future__ import annotations

import onnx

from probegen.errors import SourceError

_ML = "ai.onnx.ml"
_KINDS = {
    "sequence_type": "a sequence",
    "map_type": "a map",
    "optional_type": "an optional value",
    "sparse_tensor_type": "a sparse tensor",
}


def cut_maps(proto: onnx.ModelProto) -> list[str]:
    """Replaces the output of a `ZipMap` by the tensor that it reads, under the same name.

    `output_probability = ZipMap(probabilities)` -> `output_probability = Identity(probabilities)`

    Returns:
        A sentence for the manifest for each.

    Raises:
        SourceError: an input or another output is a sequence, a map or an optional value.
    """
    graph, notes = proto.graph, []
    outputs = {value.name: value for value in graph.output}
    for node in [n for n in graph.node if n.op_type == "ZipMap" and n.domain == _ML]:
        value = outputs.get(node.output[0])
        if value is None:
            continue
        notes.append(
            f"The output {value.name!r} of the file is a list of dictionaries, which ZipMap makes "
            f"of the tensor {node.input[0]!r}; here that tensor is the output."
        )
        value.type.CopyFrom(onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None))
        node.op_type, node.domain = "Identity", ""
        del node.attribute[:]
    values = [*(("input", v) for v in graph.input), *(("output", v) for v in graph.output)]
    for kind, value in values:
        told = value.type.WhichOneof("value")
        if told not in (None, "tensor_type"):
            raise SourceError(
                f"the {kind} {value.name!r} is {_KINDS.get(told, told)}; an artefact "
                "has tensors as inputs and outputs. Export the model so that it gives a tensor "
                "(skl2onnx: options={'zipmap': False})."
            )
    return notes
