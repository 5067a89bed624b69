"""A container in which `probegen serve` serves an artefact."""

from __future__ import annotations

import json
from collections.abc import Mapping

from probegen._version import __version__
from probegen.errors import SpecError
from probegen.runtime.texts import OF_LIBRARIES
from probegen.serve.config.base import Content, Options, Subject


def files(subject: Subject, options: Options) -> Mapping[str, Content]:
    """Returns the folder that `docker build` takes.

    Raises:
        SpecError: the artefact is a SavedModel, or the image has no name that can be.
    """
    subject.check_onnx("the container")
    if any(c.isspace() or not c.isprintable() for c in options.image):
        raise SpecError(f"{options.image!r} is no name of an image, such as probegen-serve:latest.")
    names = [file.name for file in subject.files]
    command = [
        "probegen", "serve", f"/models/{names[0]}", "--host", "0.0.0.0",
        "--port", str(options.port), "--name", subject.named(options),
        "--max-batch", str(options.max_batch),
    ]  # fmt: skip
    ready = f"http://127.0.0.1:{options.port}/v2/health/ready"
    check = ["python", "-c", f"import urllib.request as r; r.urlopen('{ready}', timeout=2)"]
    kinds = [text.tokenizer.get("kind") for text in subject.manifest.texts]
    extras = "serve,text" if set(kinds) & set(OF_LIBRARIES) else "serve"
    text = f"""\
# docker build -t {options.image} .
# docker run -p {options.port}:{options.port} {options.image}
FROM python:3.12-slim
RUN pip install --no-cache-dir 'probegen[{extras}]=={__version__}'
COPY {json.dumps([*names, "/models/"])}
# Nothing is written: run it with --read-only if you like.
USER 65534:65534
ENV MPLCONFIGDIR=/tmp
EXPOSE {options.port}
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD {json.dumps(check)}
STOPSIGNAL SIGTERM
ENTRYPOINT {json.dumps(command)}
"""
    return {"Dockerfile": text, **{file.name: file for file in subject.files}}
