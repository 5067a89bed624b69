"""The server: a thin ASGI application around `inference`, `batching` and `metrics`."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import random
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from probegen.artefact.manifest import TARGET_INPUT
from probegen.errors import ProbegenError
from probegen.runtime.drift import Running, chosen_by_the_model
from probegen.serve.batching import Batcher, Done, Limits, QueueFullError, StoppingError
from probegen.serve.description import model_metadata, server_metadata
from probegen.serve.inference import Job, Reply, Served, read, refusal, reply
from probegen.serve.logs import NAME, event
from probegen.serve.metrics import CONTENT_TYPE, Metrics
from probegen.serve.protocol import (
    JSON_LENGTH_HEADER,
    Request,
    packed,
    read_error,
    write_error,
)

#: Bodies above this are read and written in a thread, so that others are answered meanwhile.
_LARGE = 2**18


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a model is served.

    Attributes:
        limits: how requests are put together.
        largest_body: the most bytes of a request.
        drift_rate: share of explained requests whose attributions are compared with the
            reference, where the artefact holds one.
        drift_window: how many of the latest samples are compared.
    """

    limits: Limits = dataclasses.field(default_factory=Limits)
    largest_body: int = 64 * 2**20
    drift_rate: float = 1.0
    drift_window: int = 1000


class Server:
    """One model behind the Open Inference Protocol; `app` is the ASGI application."""

    def __init__(self, served: Served, settings: Settings | None = None) -> None:
        """Takes a model, and how it is served."""
        self.served = served
        self.settings = settings or Settings()
        self.batcher = Batcher(served, self.settings.limits, self._ran)
        self.metrics = Metrics(served.name, lambda: self.batcher.waiting)
        self.drift: Running | None = None
        if served.artefact.manifest.reference is not None and self.settings.drift_rate:
            self.drift = Running(served.artefact.manifest, self.settings.drift_window)
            self.metrics.watch(self.drift.drift)
        self.ready = False
        self._log = logging.getLogger(NAME)
        self._metadata = model_metadata(served)
        self.app = Starlette(
            routes=self._routes(),
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _http_error},
        )

    def _routes(self) -> list[Route]:
        model = "/v2/models/{name}"
        routes = [
            Route("/v2", self._server),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._is_ready),
            Route("/metrics", self._metrics),
        ]
        for path in (model, model + "/versions/{version}"):
            routes += [
                Route(path, self._describe),
                Route(path + "/ready", self._model_ready),
                Route(path + "/infer", self._infer, methods=["POST"]),
            ]
        return routes

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self.batcher.start()
        self.ready = True
        event(self._log, "ready", model=self.served.name, artefact=self.served.artefact.path)
        yield
        self.ready = False
        waiting = self.batcher.waiting
        await self.batcher.stop()
        event(self._log, "stopped", model=self.served.name, answered_at_last=waiting)

    # -- what is asked about the server and the model ------------------------------------------

    async def _server(self, _: HttpRequest) -> Response:
        return JSONResponse(server_metadata())

    async def _live(self, _: HttpRequest) -> Response:
        return JSONResponse({"live": True})

    async def _is_ready(self, _: HttpRequest) -> Response:
        return JSONResponse({"ready": self.ready}, 200 if self.ready else 503)

    async def _describe(self, request: HttpRequest) -> Response:
        self._check_name(request)
        return JSONResponse(self._metadata)

    async def _model_ready(self, request: HttpRequest) -> Response:
        self._check_name(request)
        answer = {"name": self.served.name, "ready": self.ready}
        return JSONResponse(answer, 200 if self.ready else 503)

    async def _metrics(self, _: HttpRequest) -> Response:
        return Response(self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    def _check_name(self, request: HttpRequest) -> None:
        """Raises for a model or a version that is not served here."""
        name = request.path_params["name"]
        version = request.path_params.get("version", self.served.version)
        if name != self.served.name:
            raise HTTPException(404, f"there is no model {name!r}; there is {self.served.name!r}.")
        if version != self.served.version:
            raise HTTPException(
                404, f"{name!r} has no version {version!r}; it has {self.served.version!r}."
            )

    # -- inference -----------------------------------------------------------------------------

    async def _infer(self, http: HttpRequest) -> Response:
        started = time.monotonic()
        told: dict[str, Any] = {"model": self.served.name, "explain": False}
        try:
            self._check_name(http)
            reply, headers = await self._answered(http, told)
        except HTTPException as error:
            reply = Reply(error.status_code, write_error(error.detail))
            headers = error.headers or {}
        except ClientDisconnect:
            reply, headers = Reply(499, write_error("the client has gone.")), {}
        except Exception:  # a fault of the server: the log tells more than the client is told
            self._log.exception("fault")
            reply, headers = Reply(500, write_error("the server failed; its log says why.")), {}
        seconds = time.monotonic() - started
        self.metrics.request(told["explain"], reply.status, seconds)
        level = logging.ERROR if reply.status == 500 else logging.INFO
        if reply.status >= 400:
            told["error"] = read_error(reply.body)
        told |= {"status": reply.status, "seconds": round(seconds, 6)}
        event(self._log, "infer", level, **told)
        return Response(reply.body, reply.status, {**reply.headers, **headers})

    async def _answered(
        self, http: HttpRequest, told: dict[str, Any]
    ) -> tuple[Reply, Mapping[str, str]]:
        """Returns the answer to a request, and headers of it; fills in what is logged."""
        body = await self._body(http)
        length = http.headers.get(JSON_LENGTH_HEADER)
        try:
            request, job = await self._threaded(len(body), read, self.served, body, length)
            told |= {"id": request.id, "explain": job.feeds.explain, "samples": job.rows}
            done: Done = await self.batcher.submit(job)
            self.metrics.waited(job.feeds.explain, done.waited)
            told |= {"queued": round(done.waited, 6), "ran": round(done.ran, 6)}
            told["batch"] = done.batch
            size = sum(array.nbytes for array in done.arrays.values())
            return await self._threaded(size, self._written, request, job, done), {}
        except (QueueFullError, StoppingError) as error:
            return Reply(503, write_error(str(error))), {"Retry-After": "1"}
        except ProbegenError as error:
            return refusal(error), {}

    def _written(self, request: Request, job: Job, done: Done) -> Reply:
        """Returns the answer, and counts what it explains."""
        self._observe(job, done)
        return reply(self.served, request, job, done.arrays)

    def _observe(self, job: Job, done: Done) -> None:
        """Counts the attributions of some of the requests that are explained."""
        if self.drift is None or not job.feeds.explain:
            return
        if random.random() < self.settings.drift_rate and not job.region:
            target = job.feeds.asked.get(TARGET_INPUT)
            self.drift.observe(done.arrays, chosen_by_the_model(target, job.rows))

    async def _body(self, http: HttpRequest) -> bytes:
        """Returns the body of a request.

        Raises:
            HTTPException: it is larger than it may be, or compressed.
        """
        if said := packed(http.headers.get("Content-Encoding")):
            raise HTTPException(415, said)
        limit = self.settings.largest_body
        told = http.headers.get("Content-Length", "")
        parts, size = [], int(told) if told.isdigit() else 0
        if size <= limit:
            size = 0
            async for part in http.stream():
                size += len(part)
                if size > limit:
                    break
                parts.append(part)
        if size > limit:
            raise HTTPException(
                413, f"the body has more than {limit} bytes.", {"Connection": "close"}
            )
        return b"".join(parts)

    @staticmethod
    async def _threaded(size: int, function: Any, *arguments: Any) -> Any:
        """Calls a function, in a thread where it takes long."""
        if size > _LARGE:
            return await run_in_threadpool(function, *arguments)
        return function(*arguments)

    def _ran(self, jobs: Any, seconds: float) -> None:
        rows = sum(job.rows for job in jobs)
        self.metrics.batch(jobs[0].feeds.explain, rows, seconds)


async def _http_error(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reply = Reply(error.status_code, write_error(error.detail))
    return Response(reply.body, reply.status, {**reply.headers, **(error.headers or {})})
