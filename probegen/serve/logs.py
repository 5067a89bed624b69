"""Logs with one JSON object a line, for whatever collects them."""

from __future__ import annotations

import datetime
import json
import logging
import sys
from typing import Any

NAME = "probegen.serve"
#: Under this key of `extra` a record carries the fields of its line.
FIELDS = "fields"
#: Characters of a text that a line holds at most: some come from whoever sends a request.
_LONGEST = 500


class JsonFormatter(logging.Formatter):
    """Writes a record as one line: time, level, event, and what it carries."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(level: str) -> logging.Logger:
    """Makes the server's and uvicorn's loggers write JSON to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in (NAME, "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = (
            [handler] if name != "uvicorn.error" else [],
            name == ("uvicorn.error"),
        )
        logger.setLevel(level.upper())
    return logging.getLogger(NAME)


def event(logger: logging.Logger, name: str, level: int = logging.INFO, **fields: Any) -> None:
    """Writes one line; long texts in it are cut."""
    cut = {k: v[:_LONGEST] if isinstance(v, str) else v for k, v in fields.items()}
    logger.log(level, name, extra={FIELDS: cut})
