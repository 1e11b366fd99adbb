"""HTTP around what answers: bugs and a registry that cannot be read cost one answer each."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import pytest

from mlxops.errors import Refused
from mlxops.serving.access import Access
from mlxops.serving.requests import Defaults
from mlxops.serving.server import ApiServer, Served, Service
from mlxops.serving.shapes import ServedModel
from mlxops.serving.tickets import Tickets

Models = Callable[[], Sequence[ServedModel]]


class Listener:
    """What the server told."""

    def __init__(self) -> None:
        self.all: list[Served] = []
        self.bugs: list[str] = []
        self.has_served = threading.Event()  # which may come after the client has its answer

    def served(self, served: Served) -> None:
        self.all.append(served)
        self.has_served.set()

    def failed(self, error: BaseException) -> None:
        self.bugs.append(str(error))


@pytest.fixture
def serve() -> Iterator[Callable[[Models], tuple[ApiServer, Listener]]]:
    """A server that lists what a function returns."""
    started: list[ApiServer] = []

    def start(models: Models) -> tuple[ApiServer, Listener]:
        listener = Listener()
        service = Service(
            models=models,
            tickets=Tickets(1),
            defaults=Defaults(max_tokens=5, temperature=0, top_p=1, top_k=0, min_p=0, repetition_penalty=1),
            access=Access(host="127.0.0.1"),
            listener=listener,
        )
        server = ApiServer("127.0.0.1", 0, service, 1)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        started.append(server)
        return server, listener

    yield start
    for server in started:
        server.close()


def asked(server: ApiServer) -> tuple[int, str]:
    """The status and the code of the error that a list of models ends with."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request("GET", "/v1/models")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())["error"]["code"]
    finally:
        connection.close()


def test_a_bug_is_told_to_the_listener_and_the_client_gets_an_error(serve) -> None:
    def broken() -> Sequence[ServedModel]:
        raise ZeroDivisionError("a bug")

    server, listener = serve(broken)

    assert [asked(server), asked(server)] == [(500, "internal_error")] * 2
    assert listener.bugs == ["a bug"] * 2


def test_a_registry_that_cannot_be_read_is_said(serve) -> None:
    def newer() -> Sequence[ServedModel]:
        raise Refused("runs.db was written by a newer mlxops")

    server, listener = serve(newer)

    assert asked(server) == (503, "unavailable")
    assert listener.has_served.wait()
    assert (listener.bugs, listener.all[0].reason) == ([], "runs.db was written by a newer mlxops")


def test_a_file_that_cannot_be_read_is_no_client_that_left(serve) -> None:
    def gone() -> Sequence[ServedModel]:
        raise FileNotFoundError(2, "No such file or directory", "config.json")

    server, _ = serve(gone)

    assert asked(server) == (503, "unavailable")


def test_a_server_ends_with_connections_at_rest(serve) -> None:
    server, _ = serve(list)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/health")
    connection.getresponse().read()

    server.close()

    assert connection.sock.recv(1) == b""
    connection.close()
    assert [each.name for each in threading.enumerate() if each.name == "connection"] == []


def test_what_is_sent_leaves_at_once(serve) -> None:
    server, _ = serve(list)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/health")
    connection.getresponse().read()

    (theirs,) = server._open
    waits_for_nothing = theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.close()

    assert waits_for_nothing


def answers(server: ApiServer, content: bytes) -> list[int]:
    """The statuses that bytes on one connection are answered with, until the server closes it."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(content)
        said = b""
        with suppress(ConnectionResetError):  # what the server has not read ends a connection so
            while piece := connection.recv(65_536):
                said += piece
    return [int(each) for each in re.findall(rb"HTTP/1.1 (\d+) ", said)]


def test_the_body_of_a_get_is_no_request(serve) -> None:
    server, _ = serve(list)
    inside = b"GET /v1/models/none HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    head = b"GET /health HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n"

    assert answers(server, head % (b"localhost", len(inside)) + inside + last) == [200, 200]
    assert answers(server, head % (b"other", len(inside)) + inside + last) == [403]
    assert answers(
        server, b"GET /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ) == [411]


@pytest.mark.parametrize("twice", [b"Content-Length: 2", b"Host: localhost", b"content-length: 3", b"HOST: other"])
def test_a_header_that_says_two_things_is_refused_and_ends_the_connection(serve, twice: bytes) -> None:
    server, _ = serve(list)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n%b\r\n\r\n{}"

    assert answers(server, head % twice + head % b"A: b") == [400]
