"""The agent's side of `/agent/v1`: one kept-alive connection, and patience.

Every call but the join is safe to repeat, so a `Link` repeats it until it gets an answer, with
waits that double up to a cap. A `Link` serves one thread at a time; threads share nothing but the
`Gate`, through which they all stop together when the agent has to.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import random
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import structlog

from agents.options import Options
from pipeline.spec import from_json, to_json
from pipeline.wire import LOG_CONTENT_TYPE, PREFIX

log = structlog.get_logger("agents.link")

#: How long an answer may take beyond the time the server is asked to hold the call.
ANSWER_S: Final = 30.0
CONNECT_S: Final = 10.0
#: Connections left idle for longer are not trusted: proxies and servers drop them in silence.
_IDLE_S: Final = 20.0
_FIRST_WAIT_S: Final = 0.25
_LOST: Final = (OSError, http.client.HTTPException)

Answer = TypeVar("Answer")


class LinkError(Exception):
    """The server refused a call. `status` is HTTP's, `code` the server's word."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message or f"the server answered {status}")
        self.status, self.code = status, code


class Stopped(Exception):
    """The agent is stopping: the call was given up."""


@dataclass
class Gate:
    """What all links of an agent share: when it last heard of the server, and whether it stops."""

    first_wait_s: float = 15.0
    longest_wait_s: float = 300.0
    #: The agent's own token, renewed when it joins anew.
    token: str = field(default="", repr=False)
    #: The server has shut this agent out: there will be no other token.
    shut_out: bool = False
    stopping: threading.Event = field(default_factory=threading.Event)
    #: Monotonic time of the last answer.
    heard: float = field(default_factory=time.monotonic)
    #: Tried again at once when set: somebody reached the server.
    reached: threading.Condition = field(default_factory=threading.Condition)

    def note_answer(self) -> None:
        """The server answered; whoever waits for it need not wait out its backoff."""
        was, self.heard = self.heard, time.monotonic()
        if self.heard - was > 1.0:
            self.wake()

    def wake(self) -> None:
        """Whoever waits looks again whether it still wants to."""
        with self.reached:
            self.reached.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait until the time is over, the server was reached or the agent stops."""
        with self.reached:
            if not self.stopping.is_set():
                self.reached.wait(seconds)

    def stop(self) -> None:
        """Give up every call that waits."""
        self.stopping.set()
        self.wake()


def wait_s(attempt: int, first_s: float, longest_s: float, jitter: float) -> float:
    """How long to wait after the `attempt`th failure, counted from 1; `jitter` is in 0..1.

    Short at first, since a server that restarts is back in a second, then doubling; the wait is
    between half of that and all of it, so that a fleet does not come back in one moment.
    """
    grown = _FIRST_WAIT_S * float(2 ** min(attempt - 1, 32))
    cap = longest_s if attempt > _attempts_up_to(first_s) else first_s
    return min(grown, cap) * (0.5 + jitter / 2)


def next_try_s(attempt: int, reason: str, first_s: float, longest_s: float) -> float:
    """Say that the `attempt`th try failed; how long to wait before the next."""
    seconds = wait_s(attempt, first_s, longest_s, random.random())  # noqa: S311 - no secret
    # the wording is that of the agents people know
    say = log.warning if attempt > 1 else log.info
    say(f"Attempting to reconnect in {_shown(seconds)}", reason=reason, attempt=attempt)
    return seconds


def _attempts_up_to(first_s: float) -> int:
    attempts, grown = 1, _FIRST_WAIT_S
    while grown < first_s:
        attempts, grown = attempts + 1, grown * 2
    return attempts


class _Gathering:
    """Lets a connection send head and body of a request in one piece."""

    _pieces: list[Any] | None = None

    def send(self, data: Any) -> None:
        """Send, or keep for the end of `gather`."""
        if self._pieces is None:
            super().send(data)  # type: ignore[misc]
        else:
            self._pieces.append(data)

    def gather(self, act: Callable[[], None]) -> None:
        """Send what `act` sends, together."""
        pieces: list[Any] = []
        self._pieces = pieces
        try:
            act()
        finally:
            self._pieces = None
        self.send(b"".join(pieces))


class _Plain(_Gathering, http.client.HTTPConnection):
    pass


class _Secure(_Gathering, http.client.HTTPSConnection):
    pass


class Link:
    """One connection to the server. Use from one thread at a time."""

    def __init__(self, options: Options, gate: Gate) -> None:
        self._options, self.gate = options, gate
        #: Presented instead of the agent's own token, which the gate holds.
        self.token = ""
        parts = urlsplit(options.server)
        self._tls = parts.scheme == "https"
        self._host, self._port = parts.hostname or "localhost", parts.port
        self._base = parts.path.rstrip("/") + PREFIX
        proxy = proxy_of(options, parts)
        self._proxy = urlsplit(proxy) if proxy else None
        #: Once set, calls that fail raise Stopped: for claims, when the agent drains.
        self.give_up: threading.Event | None = None
        self._connection: _Plain | _Secure | None = None
        self._used = 0.0
        #: When the last answer was given, by the server's clock as HTTP writes it.
        self.server_date = ""
        self.aborted = False
        self._meanwhile: Callable[[], None] | None = None

    def close(self) -> None:
        """Drop the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def abort(self) -> None:
        """Break off the call that another thread makes: it raises OSError or the like."""
        self.aborted = True
        connection = self._connection
        sock = connection.sock if connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    # --- calls ---

    def post(self, path: str, body: Any, cls: type[Answer], **more: Any) -> Answer | None:
        """POST a message, patiently; None for 204. Raises: LinkError, Stopped."""
        return self._message("POST", path, body, cls, **more)

    def put(self, path: str, body: Any, cls: type[Answer], **more: Any) -> Answer | None:
        """PUT a message, patiently; None for 204. Raises: LinkError, Stopped.

        `meanwhile` is called once, when the message is on its way for the first time.
        """
        return self._message("PUT", path, body, cls, **more)

    def delete(self, path: str) -> None:
        """DELETE, once. Raises: LinkError, OSError, http.client.HTTPException."""
        self._once("DELETE", path, b"", "", 0.0)

    def post_bytes(self, path: str, data: bytes, cls: type[Answer]) -> Answer | None:
        """POST a log batch, patiently. Raises: LinkError, Stopped."""
        return self._patiently("POST", path, data, LOG_CONTENT_TYPE, cls)

    def ask(self, method: str, path: str, data: bytes = b"") -> bytes:
        """A call with any body and answer, tried once.

        Raises: LinkError, OSError, http.client.HTTPException.
        """
        return self._once(method, path, data, "application/octet-stream" if data else "", 0.0)

    def _message(
        self,
        method: str,
        path: str,
        body: Any,
        cls: type[Answer],
        *,
        hold_s: float = 0.0,
        patient: bool = True,
        meanwhile: Callable[[], None] | None = None,
    ) -> Answer | None:
        data = json.dumps(to_json(body), separators=(",", ":")).encode()
        self._meanwhile = meanwhile
        try:
            if not patient:
                return _read(cls, self._once(method, path, data, "application/json", hold_s))
            return self._patiently(method, path, data, "application/json", cls, hold_s)
        finally:
            self._meanwhile = None

    def _patiently(
        self, method: str, path: str, data: bytes, kind: str, cls: type[Answer], hold_s: float = 0.0
    ) -> Answer | None:
        attempt = 0
        while True:
            attempt += 1
            try:
                return _read(cls, self._once(method, path, data, kind, hold_s))
            except _LOST as fault:
                self._wait(attempt, str(fault) or type(fault).__name__)
            except LinkError as fault:
                # a token that was renewed meanwhile is presented at the next try
                renewed = fault.status == 401 and not (self.token or self.gate.shut_out)
                if not (renewed or _passes(fault.status)):
                    raise
                self._wait(attempt, str(fault))

    def _wait(self, attempt: int, reason: str) -> None:
        self._check()
        self.hold_off(attempt, reason, self.gate.longest_wait_s)
        self._check()

    def hold_off(self, attempt: int, reason: str, longest_s: float) -> None:
        """Say that the `attempt`th try failed and wait before the next, at most `longest_s`."""
        self.gate.pause(next_try_s(attempt, reason, self.gate.first_wait_s, longest_s))

    def _check(self) -> None:
        if self.gate.stopping.is_set() or (self.give_up is not None and self.give_up.is_set()):
            raise Stopped

    # --- HTTP ---

    def _once(self, method: str, path: str, data: bytes, kind: str, hold_s: float) -> bytes:
        """One request; tried again once at once if a connection kept alive turns out dead."""
        self.aborted = False
        fresh = self._connection is None or time.monotonic() - self._used > _IDLE_S
        if fresh:
            self.close()
        try:
            return self._exchange(method, path, data, kind, hold_s)
        except _LOST:
            self.close()
            if fresh or self.aborted or self.gate.stopping.is_set():
                raise
        try:
            return self._exchange(method, path, data, kind, hold_s)
        except _LOST:
            self.close()
            raise

    def _exchange(self, method: str, path: str, data: bytes, kind: str, hold_s: float) -> bytes:
        connection = self._connection or self._connect()
        headers = {"Authorization": f"Bearer {self.token or self.gate.token}"}
        if kind:
            headers["Content-Type"] = kind
        if not self._tls:
            headers |= _proxy_headers(self._proxy)
        if connection.sock is not None:
            connection.sock.settimeout(ANSWER_S + hold_s)
        connection.gather(lambda: connection.request(method, self._target(path), data, headers))
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile()
        response = connection.getresponse()
        body = response.read()
        self._used = time.monotonic()
        self.server_date = response.headers.get("Date", "")
        self.gate.note_answer()
        self._dump(method, path, data, response.status, body)
        if response.status >= 300:
            raise _refusal(response.status, body)
        return b"" if response.status == 204 else body

    def _dump(self, method: str, path: str, data: bytes, status: int, body: bytes) -> None:
        """Log a call, if the options ask for it: for whoever looks for what goes wrong."""
        options = self._options
        if not (options.rpc_dump_http or options.rpc_dump_http_body):
            return
        said = {"asked": data, "answered": body} if options.rpc_dump_http_body else {}
        log.info("rpc.call", method=method, path=path, status=status, **said)

    def _target(self, path: str) -> str:
        target = self._base + path
        proxy = self._proxy if not self._tls else None
        return f"http://{self._host}:{self._port or 80}{target}" if proxy else target

    def _connect(self) -> _Plain | _Secure:
        proxy = self._proxy
        host, port = (proxy.hostname or "", proxy.port or 80) if proxy else (self._host, self._port)
        if not self._tls:
            self._connection = _Plain(host, port, timeout=CONNECT_S)
        else:
            self._connection = _Secure(
                host, port, timeout=CONNECT_S, context=tls_context(self._options)
            )
            if proxy:
                self._connection.set_tunnel(self._host, self._port or 443, _proxy_headers(proxy))
        self._connection.connect()
        self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return self._connection


def proxy_of(options: Options, place: SplitResult) -> str | None:
    """The proxy through which an address is reached; None: there is none in between."""
    text = options.https_proxy if place.scheme == "https" else options.http_proxy
    if not text or _bypasses(place.hostname or "localhost", options.no_proxy):
        return None
    return text if "://" in text else f"http://{text}"


def _bypasses(host: str, no_proxy: str) -> bool:
    proxies = {"no": no_proxy}
    return bool(no_proxy) and bool(urllib.request.proxy_bypass_environment(host, proxies))  # type: ignore[attr-defined]


def _proxy_headers(proxy: Any) -> dict[str, str]:
    if proxy is None or not proxy.username:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def tls_context(options: Options) -> ssl.SSLContext:
    """How the agent speaks TLS: system certificates, its own CA, its own certificate."""
    context = trusting(options)
    if options.client_cert:
        context.load_cert_chain(options.client_cert, options.client_key)
    if options.skip_verify:
        log.warning("the server's certificate is NOT verified: anybody between can read secrets")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def trusting(options: Options) -> ssl.SSLContext:
    """TLS to whoever a certificate of the system or of the options vouches for."""
    context = ssl.create_default_context()
    if options.ca_file:
        context.load_verify_locations(options.ca_file)
    return context


def _read(cls: type[Answer], body: bytes) -> Answer | None:
    if not body:
        return None
    try:
        return from_json(cls, json.loads(body))
    except ValueError as fault:
        raise http.client.HTTPException(f"not an answer of our server: {fault}") from fault


def _refusal(status: int, body: bytes) -> LinkError:
    try:
        data = json.loads(body)
        return LinkError(status, str(data.get("code", "")), str(data.get("message", "")))
    except (ValueError, AttributeError):
        return LinkError(status, "", "")


def _passes(status: int) -> bool:
    """Whether a refusal is worth another try."""
    return status in (408, 425, 429) or status >= 500


def _shown(seconds: float) -> str:
    return f"{seconds:.0f}s" if seconds >= 1 else f"{seconds * 1000:.0f}ms"
