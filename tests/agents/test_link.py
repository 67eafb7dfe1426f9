"""The line to the server: patience, proxies, TLS."""

from __future__ import annotations

import base64
import datetime
import http.server
import ipaddress
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agents.link import Gate, Link, LinkError, Stopped, wait_s
from agents.options import Options
from pipeline.wire import Claim, Claimed, Join, Joined
from tests.agents.double import JOIN_TOKEN, Double

JOIN = Join("agent-of-tests", "1")


@pytest.fixture
def gate() -> Gate:
    return Gate(first_wait_s=0.05, longest_wait_s=0.1)


@pytest.fixture
def link(options: Options, gate: Gate) -> Iterator[Link]:
    one = Link(options, gate)
    one.token = JOIN_TOKEN
    yield one
    one.close()


def test_waits_double_up_to_the_first_cap_then_to_the_last() -> None:
    waits = [wait_s(attempt, 15.0, 300.0, 1.0) for attempt in range(1, 14)]
    assert waits == [0.25, 0.5, 1, 2, 4, 8, 15, 32, 64, 128, 256, 300, 300]


def test_jitter_takes_up_to_half() -> None:
    assert wait_s(30, 15.0, 300.0, 0.0) == 150.0
    assert 150.0 < wait_s(30, 15.0, 300.0, 0.5) < 300.0


@pytest.mark.parametrize("fault", ["drop", "lose_answer", "refuse"])
def test_it_repeats_until_there_is_an_answer(link: Link, double: Double, fault: str) -> None:
    double.fault("join", fault, 3)
    answer = link.post("agents", JOIN, Joined)
    assert answer is not None
    assert answer.id == 7


@pytest.mark.parametrize("times", [0, 3])
def test_meanwhile_is_called_once_per_message(link: Link, double: Double, times: int) -> None:
    double.fault("join", "drop", times)
    called: list[float] = []
    link.post("agents", JOIN, Joined, meanwhile=lambda: called.append(link.gate.heard))
    assert len(called) == 1
    assert called[0] < link.gate.heard  # before the answer
    link.post("agents", JOIN, Joined)
    assert len(called) == 1


def test_it_says_when_it_tries_again(
    link: Link, double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    double.fault("join", "drop", 4)
    with structlog.testing.capture_logs() as lines:
        link.post("agents", JOIN, Joined)
    assert lines
    assert all(line["event"].startswith("Attempting to reconnect in ") for line in lines)


@pytest.mark.parametrize("body", [False, True])
def test_calls_are_logged_for_who_asks_and_their_token_never(
    options: Options, gate: Gate, body: bool
) -> None:
    one = Link(replace(options, rpc_dump_http=True, rpc_dump_http_body=body), gate)
    one.token = JOIN_TOKEN
    with structlog.testing.capture_logs() as lines:
        one.post("agents", JOIN, Joined)
    one.close()
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "agents", 200)
    ]
    assert ("asked" in lines[0]) is body
    assert JOIN_TOKEN not in str(lines)


def test_a_refusal_is_an_error_with_the_servers_words(link: Link, double: Double) -> None:
    double.refuse_join = (409, "the name is taken")
    with pytest.raises(LinkError, match="the name is taken") as caught:
        link.post("agents", JOIN, Joined)
    assert (caught.value.status, caught.value.code) == (409, "join:refused")


def test_nothing_to_say_is_none(link: Link, double: Double) -> None:
    link.token = double.token
    assert link.post("claims", Claim("n" * 32), Claimed) is None


def test_a_stopped_gate_ends_the_patience(link: Link, double: Double, gate: Gate) -> None:
    double.away()
    timer = threading.Timer(0.1, gate.stop)
    timer.start()
    with pytest.raises(Stopped):
        link.post("agents", JOIN, Joined)


def test_whoever_reaches_the_server_wakes_the_others(options: Options, double: Double) -> None:
    patient = Gate(first_wait_s=60.0, longest_wait_s=60.0)
    patient.token = double.token
    double.away()
    waiting = Link(options, patient)
    done: list[object] = []
    thread = threading.Thread(
        target=lambda: done.append(waiting.post("claims", Claim("n" * 32), Claimed))
    )
    thread.start()
    deadline = threading.Event()
    while not patient.reached._waiters:  # type: ignore[attr-defined]
        deadline.wait(0.01)
    double.away(False)
    patient.heard -= 10
    other = Link(options, patient)
    other.post("claims", Claim("m" * 32), Claimed)
    thread.join(30)
    assert done == [None]
    waiting.close()
    other.close()


def test_a_connection_that_died_while_idle_costs_no_wait(link: Link, double: Double) -> None:
    link.post("agents", JOIN, Joined)
    assert link._connection is not None
    link._connection.sock.shutdown(socket.SHUT_RDWR)
    link.give_up = threading.Event()
    link.give_up.set()
    assert link.post("agents", JOIN, Joined) is not None


def test_nonsense_instead_of_our_server_is_waited_out(options: Options, gate: Gate) -> None:
    with _serving(_Nonsense) as port:
        link = Link(replace(options, server=f"http://127.0.0.1:{port}"), gate)
        link.give_up = threading.Event()
        threading.Timer(0.2, link.give_up.set).start()
        with pytest.raises(Stopped):
            link.post("agents", JOIN, Joined)
        link.close()


class _Nonsense(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_: Any) -> None:
        pass


class _serving:
    """A small HTTP server while the block lasts; gives its port."""

    def __init__(self, handler: type, context: ssl.SSLContext | None = None) -> None:
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)

    def __enter__(self) -> int:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return int(self.server.server_address[1])

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


# --- proxies ---


class _Proxy(http.server.BaseHTTPRequestHandler):
    """Answers for every host and remembers what it was asked."""

    asked: list[str]
    shown: list[str | None] = []  # noqa: RUF012 - each test has a class of its own

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(self.path)
        self.shown.append(self.headers["Proxy-Authorization"])
        body = b'{"id": 7, "token": "t", "broker_url": "redis://"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("no_proxy", ["", "other.example.com"])
def test_it_goes_through_the_proxy(options: Options, gate: Gate, no_proxy: str) -> None:
    handler = type("Handler", (_Proxy,), {"asked": []})
    with _serving(handler) as port:
        changed = replace(
            options,
            server="http://ci.example.com/base",
            http_proxy=f"127.0.0.1:{port}",
            no_proxy=no_proxy,
        )
        link = Link(changed, gate)
        assert link.post("agents", JOIN, Joined) is not None
        link.close()
    assert handler.asked == ["http://ci.example.com:80/base/agent/v1/agents"]


def test_it_shows_a_proxy_who_it_is(options: Options, gate: Gate) -> None:
    handler = type("Handler", (_Proxy,), {"asked": [], "shown": []})
    with _serving(handler) as port:
        proxy = f"http://me:p%40ss@127.0.0.1:{port}"
        link = Link(replace(options, server="http://ci.example.com", http_proxy=proxy), gate)
        assert link.post("agents", JOIN, Joined) is not None
        link.close()
    assert handler.shown == ["Basic " + base64.b64encode(b"me:p@ss").decode()]


class _Tunnel(http.server.BaseHTTPRequestHandler):
    """A proxy that connects everybody, whatever the host, to one port of this machine."""

    port: int
    asked: list[tuple[str, str | None]]

    def do_CONNECT(self) -> None:
        self.asked.append((self.path, self.headers["Proxy-Authorization"]))
        with socket.create_connection(("127.0.0.1", self.port)) as far:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: far, far: self.connection}
            while ready := select.select(list(ends), [], [], 60)[0]:
                for end in ready:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)

    def log_message(self, *_: Any) -> None:
        pass


def test_it_goes_to_a_secure_server_through_a_tunnel(
    options: Options, gate: Gate, certificates: Path
) -> None:
    server = type("Handler", (_Proxy,), {"asked": [], "shown": []})
    with _serving(server, secure(certificates)) as port:
        tunnel = type("Handler", (_Tunnel,), {"asked": [], "port": port})
        with _serving(tunnel) as proxy:
            changed = replace(
                options,
                server="https://127.0.0.1",
                https_proxy=f"http://me:secret@127.0.0.1:{proxy}",
                ca_file=str(certificates / "cert.pem"),
            )
            link = Link(changed, gate)
            assert link.post("agents", JOIN, Joined) is not None
            link.close()
    proof = "Basic " + base64.b64encode(b"me:secret").decode()
    assert tunnel.asked == [("127.0.0.1:443", proof)]
    assert server.shown == [None]


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "*", "example.com, 127.0.0.1"])
def test_it_goes_past_the_proxy(link: Link, options: Options, gate: Gate, no_proxy: str) -> None:
    direct = Link(replace(options, http_proxy="127.0.0.1:1", no_proxy=no_proxy), gate)
    direct.token = JOIN_TOKEN
    assert direct.post("agents", JOIN, Joined) is not None
    direct.close()


# --- TLS ---


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that is its own authority, and serves as a client's, too."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(encoding))
    plain = serialization.NoEncryption()
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key.pem").write_bytes(private)
    return folder


def secure(certificates: Path, *, client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates / "cert.pem")
    return context


def join_over_tls(options: Options, gate: Gate, context: ssl.SSLContext) -> Any:
    handler = type("Handler", (_Proxy,), {"asked": []})
    with _serving(handler, context) as port:
        link = Link(replace(options, server=f"https://127.0.0.1:{port}"), gate)
        link.give_up = threading.Event()
        link.give_up.set()
        try:
            return link.post("agents", JOIN, Joined)
        finally:
            link.close()


def test_an_own_authority_is_trusted(options: Options, gate: Gate, certificates: Path) -> None:
    changed = replace(options, ca_file=str(certificates / "cert.pem"))
    assert join_over_tls(changed, gate, secure(certificates)) is not None


def test_an_unknown_authority_is_not(options: Options, gate: Gate, certificates: Path) -> None:
    with pytest.raises(Stopped):
        join_over_tls(options, gate, secure(certificates))


def test_skip_verify_trusts_anybody_and_warns(
    options: Options, gate: Gate, certificates: Path
) -> None:
    with structlog.testing.capture_logs() as lines:
        answer = join_over_tls(replace(options, skip_verify=True), gate, secure(certificates))
    assert answer is not None
    assert "NOT verified" in lines[0]["event"]


def test_a_client_certificate_is_presented(
    options: Options, gate: Gate, certificates: Path
) -> None:
    changed = replace(
        options,
        ca_file=str(certificates / "cert.pem"),
        client_cert=str(certificates / "cert.pem"),
        client_key=str(certificates / "key.pem"),
    )
    assert join_over_tls(changed, gate, secure(certificates, client=True)) is not None
