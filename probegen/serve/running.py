"""Runs the server in a process: sockets, signals, logs."""

from __future__ import annotations

import signal
import socket
import sys

import uvicorn

from probegen.errors import SpecError
from probegen.serve.app import Server
from probegen.serve.logs import event, set_up

#: How long requests that are being answered may take after the process was told to stop.
_GRACE_SECONDS = 30


def run(server: Server, host: str, port: int, log_level: str) -> None:
    """Serves until the process is told to stop (SIGTERM, SIGINT), and answers what waits.

    Args:
        server: the model.
        host: address to listen at.
        port: 0 for any that is free; the log says which.
        log_level: of the logs, which go to standard error, one JSON object a line.

    Raises:
        SpecError: the address cannot be listened at.
    """
    logger = set_up(log_level)
    # uvicorn raises the signal again that it was stopped by, when all is answered.
    for told_to_stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told_to_stop, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        server.app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    try:
        listening = config.bind_socket()
    except SystemExit as error:  # uvicorn has logged why
        raise SpecError(
            f"cannot listen at {host}:{port}: it is taken, or no address of this machine; the log "
            "says which."
        ) from error
    # asyncio sets this by itself only on sockets that it has made. Without it a client that keeps
    # its connection waits 40 ms for the second half of each answer.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.listen(config.backlog)  # who connects from now on is answered when all is ready
    address = listening.getsockname()
    event(logger, "listening", host=address[0], port=address[1], model=server.served.name)
    uvicorn.Server(config).run(sockets=[listening])
