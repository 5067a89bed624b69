"""An InferenceService of KServe that runs the container of `docker`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from probegen.errors import SpecError
from probegen.serve.config.base import Content, Options, Subject

#: A name in Kubernetes (RFC 1123).
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def files(subject: Subject, options: Options) -> Mapping[str, Content]:
    """Returns the manifest.

    Raises:
        SpecError: the artefact is a SavedModel, or its name is none for Kubernetes.
    """
    subject.check_onnx("KServe")
    name = subject.named(options)
    service = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not _NAME.fullmatch(service):
        raise SpecError(f"{name!r} makes no name of a service in Kubernetes; give another --name.")

    def probe(path: str) -> str:
        return f"{{httpGet: {{path: {json.dumps(path)}, port: {options.port}}}}}"

    # A container takes the model's name as its command line says it: see the Dockerfile.
    return {
        "inference_service.yaml": f"""\
# The image is that of `probegen serve-config docker`.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {service}
spec:
  predictor:
    containers:
      - name: kserve-container
        image: {json.dumps(options.image)}
        args: {json.dumps(["--name", name])}
        ports:
          - containerPort: {options.port}
            protocol: TCP
        env:
          - {{name: PROTOCOL, value: v2}}
        readinessProbe: {probe(f"/v2/models/{name}/ready")}
        livenessProbe: {probe("/v2/health/live")}
        securityContext:
          runAsNonRoot: true
          allowPrivilegeEscalation: false
"""
    }
