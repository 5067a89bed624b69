"""A KServe model over the same function as `probegen serve`.

KServe's own decoding turns each binary tensor into a Python list. `route` is therefore put before
KServe's in its application: HTTP requests for the model come as the bytes that they are. `predict`
takes what KServe has decoded: requests by gRPC. Run it with

    python -m probegen.serve.kserve m.onnx --model_name m
"""

from __future__ import annotations

import argparse
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import kserve
from kserve import model_server
from kserve.errors import InvalidInput
from kserve.protocol.infer_type import InferOutput, InferRequest, InferResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse
from starlette.routing import Route

from probegen import runtime
from probegen.errors import InputError
from probegen.serve.datatypes import name_of
from probegen.serve.description import model_metadata
from probegen.serve.inference import Served, answer, infer, prepare
from probegen.serve.protocol import JSON_LENGTH_HEADER, Request, packed, write_error


class ProbegenModel(kserve.Model):
    """An artefact as a KServe model; explanations where a request's parameters say `explain`."""

    def __init__(self, name: str, path: str | os.PathLike[str], **options: Any) -> None:
        """Takes the model's name, and what `runtime.load` takes."""
        super().__init__(name)
        self._path, self._options = path, options
        self.served: Served | None = None

    def load(self) -> bool:
        """Opens the artefact.

        Raises:
            ArtefactError: it cannot be opened, or served.
        """
        self.served = Served(runtime.load(self._path, **self._options), self.name)
        self.ready = True
        return True

    def get_input_types(self) -> list[dict[str, Any]]:
        """Returns the model's inputs as the protocol's metadata has them."""
        return list(model_metadata(self._served())["inputs"])

    def get_output_types(self) -> list[dict[str, Any]]:
        """Returns predictions and explanations as the protocol's metadata has them."""
        return list(model_metadata(self._served())["outputs"])

    def predict(
        self, payload: InferRequest, headers: Mapping[str, str] | None = None
    ) -> InferResponse:
        """Answers a request that KServe has decoded.

        Raises:
            InvalidInput: it does not fit, which KServe answers with status 400.
        """
        del headers
        if not isinstance(payload, InferRequest):
            raise InvalidInput("requests of the Open Inference Protocol (V2) are answered, no V1.")
        wanted = tuple(output.name for output in payload.request_outputs or ())
        request = Request(
            {tensor.name: tensor.as_numpy() for tensor in payload.inputs},
            {key: _value(value) for key, value in dict(payload.parameters or {}).items()},
            wanted or None,
            id=payload.id or uuid.uuid4().hex,
        )
        served = self._served()
        try:
            job = prepare(served, request)
        except InputError as error:
            raise InvalidInput(str(error)) from error
        response = answer(served, request, job, served.artefact.compute(job.feeds, job.outputs))
        outputs = []
        for name, array in response.outputs.items():
            output = InferOutput(name, list(array.shape), name_of(array))
            output.set_data_from_numpy(array, binary_data=payload.use_binary_outputs)
            outputs.append(output)
        return InferResponse(response.id, self.name, outputs, model_version=response.version)

    def route(self) -> Route:
        """Returns what answers HTTP requests for the model, to be put before KServe's routes."""

        async def respond(http: HttpRequest) -> HttpResponse:
            if said := packed(http.headers.get("Content-Encoding")):
                return HttpResponse(write_error(said), 415, media_type="application/json")
            length = http.headers.get(JSON_LENGTH_HEADER)
            body = await http.body()
            reply = await run_in_threadpool(infer, self._served(), body, length)
            return HttpResponse(reply.body, reply.status, reply.headers)

        return Route(f"/v2/models/{self.name}/infer", respond, methods=["POST"])

    def _served(self) -> Served:
        if self.served is None:
            raise kserve.errors.ModelNotReady(self.name)
        return self.served


def _value(value: Any) -> Any:
    """Returns a parameter's value; gRPC wraps it with its type."""
    chosen = value.WhichOneof("parameter_choice") if hasattr(value, "WhichOneof") else None
    return value if chosen is None else getattr(value, chosen)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves an artefact by KServe's own server."""
    parser = argparse.ArgumentParser(parents=[model_server.parser], conflict_handler="resolve")
    parser.add_argument("artefact", help="ONNX file")
    given = parser.parse_args(arguments)
    model = ProbegenModel(given.model_name, given.artefact)
    model.load()
    model_server.app.router.routes.insert(0, model.route())
    kserve.ModelServer().start([model])


if __name__ == "__main__":
    main()
