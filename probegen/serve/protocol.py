"""Requests and responses of the Open Inference Protocol (V2) over HTTP, as bytes and as values.

A body is JSON. With the binary tensor extension bytes of tensors follow it, in the order of the
tensors; the header `Inference-Header-Content-Length` then says how long the JSON is.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from probegen.errors import InputError, SpecError
from probegen.runtime.inputs import Array
from probegen.serve import datatypes

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
#: Parameters of the extension: of a tensor its bytes, of an output and of a request its form.
_SIZE, _BINARY, _ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"
#: Parameters of extensions that change what an output holds, which are not served here.
_NOT_SERVED = ("classification", "shared_memory_region")


@dataclasses.dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        inputs: tensors by name.
        parameters: of the request.
        outputs: names of the outputs that are wanted, in order; None for all.
        binary: which outputs come as bytes, by name.
        all_binary: whether those come as bytes of which `binary` says nothing.
        id: the request's, which is made where it came without one.
    """

    inputs: Mapping[str, Array]
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    outputs: tuple[str, ...] | None = None
    binary: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    all_binary: bool = False
    id: str = ""


@dataclasses.dataclass(frozen=True)
class Response:
    """What is answered.

    Attributes:
        model: name of the model.
        version: its version.
        id: that of the request.
        outputs: arrays by name, in order.
        parameters: of the response.
    """

    model: str
    version: str
    id: str
    outputs: Mapping[str, Array]
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def check_model_name(name: str) -> str:
    """Returns the name that requests call a model by: a part of an address and of a path.

    Raises:
        SpecError: it cannot stand there.
    """
    if (
        not name
        or name in (".", "..")
        or any(c in '/\\?#%"' or not c.isprintable() or c.isspace() for c in name)
    ):
        raise SpecError(f"{name!r} cannot stand in an address; give another --name.")
    return name


def read_request(body: bytes, json_length: int | str | None = None) -> Request:
    """Reads a request.

    Args:
        body: the whole of it.
        json_length: value of the header `Inference-Header-Content-Length`; None without it.

    Raises:
        InputError: it is none; says what is wrong with it.
    """
    length = _json_length(body, json_length)
    content = _parsed(body[:length])
    inputs = _entries(content, "inputs")
    if not inputs:
        raise InputError("the request has no inputs.")
    rest = memoryview(body)[length:]
    found: dict[str, Array] = {}
    for entry in inputs:
        name = _name(entry, "input", found)
        found[name], rest = _tensor(name, entry, rest)
    if len(rest):
        raise InputError(f"{len(rest)} bytes follow the JSON that belong to no input.")
    parameters = _parameters(content, "the request")
    wanted: dict[str, bool | None] = {}
    for entry in _entries(content, "outputs"):
        name = _name(entry, "output", wanted)
        asked = _parameters(entry, f"output {name!r}")
        for extension in _NOT_SERVED:
            if asked.get(extension) is not None:
                raise InputError(
                    f"the output {name!r} is asked for with the parameter {extension!r}, which is "
                    "of an extension that this server does not have; leave it out."
                )
        wanted[name] = _flag(asked, _BINARY)
    id_ = content.get("id")
    if id_ is not None and not isinstance(id_, str):
        raise InputError(f"the request's id is {str(id_)[:40]!a}; expected text.")
    return Request(
        found,
        parameters,
        tuple(wanted) or None,
        {name: binary for name, binary in wanted.items() if binary is not None},
        _flag(parameters, _ALL_BINARY) or False,
        id_ or uuid.uuid4().hex,
    )


def write_response(response: Response, request: Request) -> tuple[bytes, int | None]:
    """Returns the body of a response, and the length of its JSON where bytes follow it."""
    outputs, parts = [], []
    for name, array in response.outputs.items():
        entry: dict[str, Any] = {
            "name": name,
            "shape": list(array.shape),
            "datatype": datatypes.name_of(array),
        }
        if request.binary.get(name, request.all_binary):
            parts.append(datatypes.to_binary(array))
            entry["parameters"] = {_SIZE: len(parts[-1])}
        else:
            entry["data"], lost = datatypes.to_json(array)
            if lost:  # null stands for NaN and infinities, which JSON has not
                entry["parameters"] = {"not_finite": lost}
        outputs.append(entry)
    content: dict[str, Any] = {
        "model_name": response.model,
        "model_version": response.version,
        "id": response.id,
    }
    if response.parameters:
        content["parameters"] = dict(response.parameters)
    text = json.dumps({**content, "outputs": outputs}, separators=(",", ":")).encode()
    return (b"".join([text, *parts]), len(text)) if parts else (text, None)


def write_error(message: str) -> bytes:
    """Returns the body of an answer that is an error."""
    return json.dumps({"error": message}).encode()


def read_error(body: bytes) -> str:
    """Returns the message that `write_error` wrote."""
    return str(json.loads(body)["error"])


def packed(encoding: str | None) -> str | None:
    """Returns why a body is not taken, by its header `Content-Encoding`; None where it is."""
    if encoding is None or encoding.strip().lower() in ("", "identity"):
        return None
    return f"bodies are taken as they are, not as {encoding}."


def _json_length(body: bytes, given: int | str | None) -> int:
    if given is None:
        return len(body)
    text = str(given).strip()
    if not (text.isascii() and text.isdigit()) or int(text) > len(body):
        raise InputError(
            f"the header {JSON_LENGTH_HEADER} is {text[:40]!r}; expected the length of the JSON at "
            f"the start of the body, which has {len(body)} bytes."
        )
    return int(text)


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"the request is no JSON: {error}. Where bytes of tensors follow the JSON, the header "
            f"{JSON_LENGTH_HEADER} says how long it is."
        ) from error
    if not isinstance(content, dict):
        raise InputError('the request is no JSON object; expected {"inputs": [...]}.')
    return content


def _entries(content: Mapping[str, Any], what: str) -> Sequence[Mapping[str, Any]]:
    entries = content.get(what)
    if entries is None:
        return []
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise InputError(f"the request's {what} are no list of objects.")
    return entries


def _name(entry: Mapping[str, Any], what: str, taken: Mapping[str, Any]) -> str:
    name = entry.get("name")
    if not isinstance(name, str):
        raise InputError(f"an {what} has no name.")
    if name in taken:
        raise InputError(f"the {what} {name!r} stands there twice.")
    return name


def _parameters(entry: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    found = entry.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(f"the parameters of {what} are no object.")
    return found


def _flag(parameters: Mapping[str, Any], name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"the parameter {name!r} is {str(value)[:40]!a}; expected true or false.")
    return value


def _tensor(name: str, entry: Mapping[str, Any], rest: memoryview) -> tuple[Array, memoryview]:
    """Returns a tensor and the bytes behind it."""
    size = _parameters(entry, f"input {name!r}").get(_SIZE)
    shape, datatype = entry.get("shape"), entry.get("datatype")
    if size is None:
        if "data" not in entry:
            raise InputError(f"input {name!r} has neither data nor the parameter {_SIZE!r}.")
        return datatypes.from_json(name, shape, datatype, entry["data"]), rest
    if "data" in entry:
        raise InputError(f"input {name!r} has both data and the parameter {_SIZE!r}.")
    if type(size) is not int:
        raise InputError(
            f"the parameter {_SIZE!r} of input {name!r} is {str(size)[:40]!a}; expected a whole "
            "number."
        )
    if not 0 <= size <= len(rest):
        raise InputError(
            f"input {name!r} is to have {size} bytes, and {len(rest)} are left of the "
            f"body behind the JSON. Its end is told by the header {JSON_LENGTH_HEADER}."
        )
    return datatypes.from_binary(name, shape, datatype, rest[:size]), rest[size:]
