"""HTTP: one thread for each connection, each request checked before its body is read."""

from __future__ import annotations

import json
import select
import socket
import socketserver
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from mlxops.errors import MlxopsError
from mlxops.foreign import in_words
from mlxops.serving import requests
from mlxops.serving.access import Access
from mlxops.serving.requests import MOST_BYTES, Defaults
from mlxops.serving.shapes import (
    ApiError,
    Delta,
    Finished,
    JsonObject,
    Kind,
    Reply,
    ServedModel,
    Started,
    internal_error,
)
from mlxops.serving.tickets import Ticket, Tickets

_PATHS: dict[str, Kind] = {"/v1/chat/completions": "chat", "/v1/completions": "text"}
_IDS: dict[Kind, str] = {"chat": "chatcmpl", "text": "cmpl"}
_PATIENCE = 60.0  # seconds without a byte from a client, or without it taking one
_LOOK = 0.25  # seconds between two looks at whether a client is still there
_CONNECTIONS = 64  # at a time, besides those that wait for the model
_DIGITS = 18  # of a length
_DRAINED = 16 * MOST_BYTES  # of a body that is too long: a client reads the answer once it has sent all


@dataclass(frozen=True, kw_only=True)
class Served:
    """A request that was answered, for the log; `reason` is why the answer ended, or what was wrong."""

    path: str
    status: int
    seconds: float
    reason: str
    model: str | None = None
    prompt_tokens: int = 0
    tokens: int = 0


class Listener(Protocol):
    """What is told about the requests."""

    def served(self, served: Served) -> None:
        """A request was answered, or its client left."""

    def failed(self, error: BaseException) -> None:
        """Something happened that nobody foresaw; the server continues."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """What the server stands on: the models there are, the queue of requests, and what counts unless one says."""

    models: Callable[[], Sequence[ServedModel]]
    tickets: Tickets
    defaults: Defaults
    access: Access
    listener: Listener


class ApiServer(socketserver.TCPServer):
    """The server; it listens from the start, and answers once `serve_forever` runs. Raises OSError for the address."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, service: Service, waiting: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.service = service
        self._room = threading.BoundedSemaphore(_CONNECTIONS + waiting)
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        super().__init__((host, port), _Handler)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own; one too many is closed at once."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        thread = threading.Thread(target=self._work, args=(request, client_address), name="connection", daemon=True)
        with self._lock:
            self._open[request] = thread
        thread.start()

    def _work(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # the client is gone
        finally:
            with self._lock:
                del self._open[request]
            self.shutdown_request(request)
            self._room.release()

    def close(self, patience: float = 2.0) -> None:
        """End every connection: those at rest at once, those at work when they have said so, or are out of patience."""
        self.shutdown()
        self.server_close()
        until = time.monotonic() + patience
        for how, deadline in ((socket.SHUT_RD, until), (socket.SHUT_RDWR, until + patience)):
            with self._lock:
                left = dict(self._open)
            for connection in left:
                try:
                    connection.shutdown(how)
                except OSError:
                    continue
            for thread in left.values():
                thread.join(max(0.0, deadline - time.monotonic()))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "mlxops"
    sys_version = ""
    timeout = _PATIENCE
    # else what comes behind a head, and each token of a stream, waits up to 40 ms until the client confirms what it has
    disable_nagle_algorithm = True
    server: ApiServer

    # what is asked --------------------------------------------------------------------------------------------------

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, work: Callable[[str], Served]) -> None:
        started = time.monotonic()
        path = ""
        self._began = started
        self._is_streaming = False
        try:
            try:
                path = urlsplit(self.path).path
            except ValueError as error:
                raise ApiError(400, "the target is no address") from error
            self._check_headers()
            self.server.service.access.check(self.headers.get)
            if self.command == "GET" and self._has_body():
                self._body()  # else it would be read as the next request
            served = work(path)
        except ApiError as error:
            served = self._refuse(path, error)
        except OSError:
            self.close_connection = True
            served = Served(path=path, status=499, seconds=time.monotonic() - started, reason="the client left")
        except MlxopsError as error:
            served = self._refuse(path, ApiError(503, error.message, code="unavailable"))
        except Exception as error:  # a bug costs one answer, and is kept
            self.server.service.listener.failed(error)
            self.close_connection = True
            served = self._refuse(path, internal_error())
        self.server.service.listener.served(served)

    def _check_headers(self) -> None:
        """Raise `ApiError` where two programs could read the request in two ways."""
        for name in ("Host", "Content-Length"):
            if len(self.headers.get_all(name, ())) > 1:
                self.close_connection = True
                raise ApiError(400, f"the request has more than one {name}")

    def _has_body(self) -> bool:
        return "Content-Length" in self.headers or "Transfer-Encoding" in self.headers

    def _get(self, path: str) -> Served:
        if path == "/v1/models":
            self._send({"object": "list", "data": [model.to_json() for model in self._models()]})
        elif path.startswith("/v1/models/"):
            models = {model.id: model for model in self._models()}
            model = models.get(unquote(path.removeprefix("/v1/models/")))
            if model is None:
                raise ApiError(404, "there is no model of that name", code="model_not_found", param="model")
            self._send(model.to_json())
        elif path == "/health":
            self._send({"status": "ok"})
        else:
            raise self._no_path(path)
        return self._served(path, "ok")

    def _models(self) -> Sequence[ServedModel]:
        try:
            return self.server.service.models()
        except OSError as error:  # of a file; one of the connection means that the client left
            raise ApiError(503, f"the models cannot be listed: {in_words(error)}", code="unavailable") from error

    def _post(self, path: str) -> Served:
        service = self.server.service
        if path not in _PATHS:
            raise self._no_path(path)
        kind = _PATHS[path]
        request = requests.read(self._body(), kind, service.defaults)
        ticket = service.tickets.add(request)
        try:
            first = self._next(ticket)
            if not isinstance(first, Started):
                raise TypeError(f"an answer begins with its model, not with {first!r}")
            reply = Reply(kind=kind, id=f"{_IDS[kind]}-{uuid.uuid4().hex}", created=int(time.time()), model=first.model)
            finished = self._stream(ticket, reply) if request.stream else self._whole(ticket, reply)
        except BaseException:
            ticket.cancel()
            raise
        return self._served(path, finished.reason, reply.model, finished)

    def _no_path(self, path: str) -> ApiError:
        return ApiError(404, f"there is no {self.command} {path[:80]!r} here", code="unknown_url")

    def _body(self) -> bytes:
        """The body of the request. Raises `ApiError` for one that is too long or of unknown length."""
        length = self._length()
        if length is None or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise ApiError(411, "the request needs a Content-Length", code="length_required")
        if length > MOST_BYTES:
            self.close_connection = True
            self._drain(length)
            raise ApiError(413, f"the body is longer than {MOST_BYTES:,} bytes", code="body_too_large")
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionError("the client left before its request was whole")
        return body

    def _length(self) -> int | None:
        said = self.headers.get("Content-Length", "").strip()
        # Python refuses to read a number of thousands of digits
        return int(said) if said.isascii() and said.isdecimal() and len(said) < _DIGITS else None

    def _drain(self, length: int) -> None:
        left = min(length, _DRAINED)
        while left > 0 and (read := len(self.rfile.read1(min(left, 65_536)))):
            left -= read

    def handle_expect_100(self) -> bool:
        """Let a client send its body, where that is one to be read."""
        if (self._length() or 0) > MOST_BYTES:
            return True  # the answer comes instead
        return super().handle_expect_100()

    # what is answered -----------------------------------------------------------------------------------------------

    def _next(self, ticket: Ticket) -> Started | Delta | Finished:
        """The next event of an answer. Raises the `ApiError` that it ends with, and OSError where the client left."""
        while (event := ticket.get(_LOOK)) is None:
            if self._has_left():
                raise ConnectionError("the client left")
        if isinstance(event, ApiError):
            raise event
        return event

    def _has_left(self) -> bool:
        looking = select.poll()  # `select` takes no descriptor beyond 1,023
        looking.register(self.connection, select.POLLIN)
        if not looking.poll(0):
            return False
        return not self.connection.recv(1, socket.MSG_PEEK)

    def _whole(self, ticket: Ticket, reply: Reply) -> Finished:
        deltas: list[Delta] = []
        while not isinstance(event := self._next(ticket), Finished):
            if isinstance(event, Delta):
                deltas.append(event)
        self._send(reply.whole(deltas, event))
        return event

    def _stream(self, ticket: Ticket, reply: Reply) -> Finished:
        self.send_response(200)
        self._common("text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self._is_chunked = self.request_version != "HTTP/1.0"
        if self._is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.close_connection = True
        self.end_headers()
        self._is_streaming = True
        if reply.kind == "chat":
            self._event(reply.piece(Delta()))
        while not isinstance(event := self._next(ticket), Finished):
            if isinstance(event, Delta):
                self._event(reply.piece(event))
            if self._has_left():
                raise ConnectionError("the client left")
        self._event(reply.end(event.reason))
        if ticket.request.include_usage:
            self._event(reply.counts(event))
        self._write(b"data: [DONE]\n\n")
        self._end_of_stream()
        return event

    def _event(self, content: JsonObject) -> None:
        self._write(b"data: " + _encoded(content) + b"\n\n")

    def _write(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content) if self._is_chunked else content)
        self.wfile.flush()

    def _end_of_stream(self) -> None:
        if self._is_chunked:
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()

    def _send(self, content: JsonObject, status: int = 200, retry_after: int | None = None) -> None:
        body = _encoded(content)
        self.send_response(status)
        self._common("application/json")
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _common(self, kind: str) -> None:
        self.send_header("Content-Type", kind)
        # a page of another origin gets nothing, whatever way it asks
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")

    def _refuse(self, path: str, error: ApiError) -> Served:
        """Tell the client what was wrong; in the middle of a stream as its last event."""
        if not self._is_streaming and self._has_body() and error.status in (401, 403, 404):
            self.close_connection = True  # its body was not read
        try:
            if self._is_streaming:
                self._event(error.to_json())
                self._end_of_stream()
            else:
                self._send(error.to_json(), error.status, error.retry_after)
        except OSError:
            self.close_connection = True
        return Served(path=path, status=error.status, seconds=time.monotonic() - self._began, reason=error.message)

    def _served(self, path: str, reason: str, model: str | None = None, finished: Finished | None = None) -> Served:
        return Served(
            path=path,
            status=200,
            seconds=time.monotonic() - self._began,
            reason=reason,
            model=model,
            prompt_tokens=finished.prompt_tokens if finished else 0,
            tokens=finished.tokens if finished else 0,
        )

    # what http.server would do otherwise ----------------------------------------------------------------------------

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """An error of HTTP itself, in the same shape as every other."""
        self.close_connection = True
        # a method that is not there is 501 to http.server
        status = 405 if code == 501 else code
        words = f"{self.command} is not a method of this server" if code == 501 else message or "the request is wrong"
        self._send(ApiError(status, words).to_json(), status)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests are told to the listener."""


def _encoded(content: JsonObject) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
