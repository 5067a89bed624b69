"""What a process that serves does before it answers; see tests/cli/test_serve.py for the rest."""

import logging
import signal
import socket

import uvicorn

from probegen.serve import running
from probegen.serve.app import Server


def test_each_part_of_an_answer_is_sent_at_once(monkeypatch, zoo):
    """Otherwise a client that keeps its connection waits 40 ms for the second part of each."""
    told = []

    def connected(self, sockets):
        del self
        (listening,) = sockets
        with (
            socket.create_connection(listening.getsockname()),
            listening.accept()[0] as connection,
            listening,
        ):
            told.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(uvicorn.Server, "run", connected)
    # Neither the signals nor the logs of the tests' own process are touched.
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(running, "set_up", lambda _: logging.getLogger("none"))
    running.run(Server(zoo), "127.0.0.1", 0, "info")
    assert told == [1]
