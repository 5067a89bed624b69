"""Requests and responses of the V2 protocol, written and read by hand."""

import json
import struct

import numpy as np

NAMES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip


def as_json(inputs, outputs=None, nested=False, **rest):
    """The body of a request whose tensors are JSON."""
    tensors = [
        {
            "name": name,
            "shape": list(a.shape),
            "datatype": NAMES.get(a.dtype.name, "BYTES"),
            "data": a.tolist() if nested else a.ravel().tolist(),
        }
        for name, a in inputs.items()
    ]
    body = {"inputs": tensors, **rest}
    if outputs is not None:
        body["outputs"] = [{"name": name} for name in outputs]
    return json.dumps(body).encode()


def as_binary(inputs, outputs=None, **rest):
    """The body of a request whose tensors are bytes, and the length of its JSON."""
    tensors, parts = [], []
    for name, a in inputs.items():
        if a.dtype.name in NAMES:
            parts.append(a.astype(a.dtype.newbyteorder("<")).tobytes())
        else:
            texts = [str(v).encode() for v in a.ravel()]
            parts.append(b"".join(struct.pack("<I", len(t)) + t for t in texts))
        tensors.append(
            {
                "name": name,
                "shape": list(a.shape),
                "datatype": NAMES.get(a.dtype.name, "BYTES"),
                "parameters": {"binary_data_size": len(parts[-1])},
            }
        )
    body = {"inputs": tensors, **rest}
    if outputs is not None:
        body["outputs"] = [{"name": n, "parameters": {"binary_data": True}} for n in outputs]
    text = json.dumps(body).encode()
    return text + b"".join(parts), len(text)


def read(body, json_length=None):
    """The response's JSON, and its tensors by name."""
    length = len(body) if json_length is None else int(json_length)
    content = json.loads(body[:length], parse_constant=lambda _: 1 / 0)  # no NaN in JSON
    place, found = length, {}
    types = {name: dtype for dtype, name in NAMES.items()}
    for output in content.get("outputs", []):
        dtype = types[output["datatype"]]
        if "data" in output:
            array = np.array(output["data"], dtype)
        else:
            size = output["parameters"]["binary_data_size"]
            array = np.frombuffer(body[place : place + size], np.dtype(dtype).newbyteorder("<"))
            place += size
        found[output["name"]] = array.reshape(output["shape"])
    assert place == len(body)
    return content, found
