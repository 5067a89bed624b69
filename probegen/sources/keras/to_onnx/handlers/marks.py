"""Operations that are kept as marks of our own."""

from __future__ import annotations

from typing import Any

from probegen.graph.core.marks import MARK_DOMAIN
from probegen.sources.keras.to_onnx.handlers.writer import Handler


def keep_as(op_type: str) -> Handler:
    """Returns a handler that keeps an operation as a mark of our own."""

    def handler(_: Any, node: Any, __: str, ___: Any) -> None:
        node.type = op_type
        node.domain = MARK_DOMAIN

    return handler
