"""An HTTP proxy between an agent and its server that loses answers and cuts lines on demand."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Wanted = Callable[[str, str, bytes], bool]


class Proxy:
    """Use as a context manager; `target` is where requests go."""

    def __init__(self) -> None:
        self.target: tuple[str, int] = ("127.0.0.1", 0)
        self.requests: list[tuple[str, str]] = []
        self.lost: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._cut = False
        self._lose: list[Wanted] = []
        self._swallow: Callable[[str, str], bool] | None = None
        #: Paths of the requests that got lost on their way.
        self.swallowed: list[str] = []
        self._open: set[socket.socket] = set()
        self._server = _Server(self)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._drop_all()

    def cut(self) -> None:
        """Break every connection and refuse new ones until `mend`."""
        self._cut = True
        self._drop_all()

    def mend(self) -> None:
        """Let everything through again."""
        self._cut = False

    def lose_answer(self, method: str, part: str, times: int = 1, body: bytes = b"") -> None:
        """Let the next `times` requests of `method` whose path has `part`, and whose body has
        `body`, reach the server, and lose what it answers."""
        wanted = lambda m, path, data: m == method and part in path and body in data  # noqa: E731
        with self._lock:
            self._lose += [wanted] * times

    def lose_no_more(self) -> None:
        """Let every answer through from now on."""
        with self._lock:
            self._lose = []

    def swallow(self, method: str, part: str) -> None:
        """Let no request of `method` whose path has `part` reach the server.

        What was said before counts no more.
        """
        self._swallow = lambda m, path: m == method and part in path

    def swallows(self, method: str, path: str) -> bool:
        """Whether a request is to get lost on its way; notes it."""
        if self._swallow is None or not self._swallow(method, path):
            return False
        self.swallowed.append(path)
        return True

    def _drop_all(self) -> None:
        with self._lock:
            doomed, self._open = self._open, set()
        for connection in doomed:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def admit(self, connection: socket.socket) -> bool:
        """Whether a new connection may talk."""
        with self._lock:
            if not self._cut:
                self._open.add(connection)
            return not self._cut

    def forget(self, connection: socket.socket) -> None:
        """The connection has ended."""
        with self._lock:
            self._open.discard(connection)

    def loses(self, method: str, path: str, body: bytes) -> bool:
        """Note a request; whether its answer is to be lost."""
        with self._lock:
            self.requests.append((method, path))
            for index, wanted in enumerate(self._lose):
                if wanted(method, path, body):
                    del self._lose[index]
                    self.lost.append((method, path))
                    return True
        return False


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A broken connection is what this proxy is for."""


def _pump(read: Callable[[int], bytes], there: socket.socket) -> None:
    """Copy until either end has had enough, then close that way."""
    with contextlib.suppress(OSError):
        while data := read(65536):
            there.sendall(data)
    with contextlib.suppress(OSError):
        there.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.upstream = http.client.HTTPConnection(*self.server.proxy.target, timeout=120)

    def handle(self) -> None:
        if self.server.proxy.admit(self.connection):
            super().handle()

    def finish(self) -> None:
        self.server.proxy.forget(self.connection)
        self.upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def _tunnel(self) -> None:
        """A websocket: the request and then bytes, both ways."""
        self.close_connection = True
        lines = [self.requestline, *(f"{name}: {value}" for name, value in self.headers.items())]
        with socket.create_connection(self.server.proxy.target) as far:
            far.sendall("\r\n".join([*lines, "", ""]).encode("latin1"))
            back = threading.Thread(target=_pump, args=(far.recv, self.connection), daemon=True)
            back.start()
            _pump(self.rfile.read1, far)
            _pump(lambda size: b"", self.connection)
            back.join()

    def _relay(self) -> None:
        if self.headers.get("Upgrade"):
            self._tunnel()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.proxy.swallows(self.command, self.path):
            self.close_connection = True
            return
        lost = self.server.proxy.loses(self.command, self.path, body)
        headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
        try:
            self.upstream.request(self.command, self.path, body, headers)
            answer = self.upstream.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self.upstream.close()
            self.close_connection = True
            return
        if lost or self.server.proxy._cut:
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _relay

    def log_message(self, *_: Any) -> None:
        """Says nothing."""
