"""Git hosts for tests: a real sshd on loopback, and git's own HTTP server behind a password."""

from __future__ import annotations

import base64
import contextlib
import getpass
import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.services import free_port, listens, program, running, short_folder, wait_for

LOGIN, PASSWORD = "octo", "hunter2-and-more"


@dataclass(frozen=True)
class SshHost:
    """An sshd of the test's own; `folder` holds repositories and every key."""

    folder: Path
    port: int

    @property
    def key(self) -> Path:
        """A private key that gets in."""
        return self.folder / "key"

    @property
    def other_key(self) -> Path:
        """A private key that does not."""
        return self.folder / "other"

    @property
    def known_hosts(self) -> Path:
        """A file with this host's key."""
        return self.folder / "known_hosts"

    @property
    def wrong_hosts(self) -> Path:
        """A file with another key for this host."""
        return self.folder / "wrong_hosts"

    def url(self, repository: Path) -> str:
        """The address of a repository on this machine."""
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{repository}"


@contextlib.contextmanager
def ssh_host() -> Iterator[SshHost]:
    """A running sshd that lets one key in, as the user who runs the tests."""
    with short_folder() as folder:
        host = SshHost(folder, free_port())
        for name in ("host", "key", "other"):
            _keygen(folder / name)
        shutil.copy(folder / "key.pub", folder / "authorized")
        where = f"[127.0.0.1]:{host.port}"
        host.known_hosts.write_text(f"{where} {(folder / 'host.pub').read_text()}")
        host.wrong_hosts.write_text(f"{where} {(folder / 'other.pub').read_text()}")
        (folder / "config").write_text(_sshd_config(host))
        if os.getuid() == 0:  # sshd wants it to exist, and Debian makes it at boot
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        argv = [program("sshd"), "-D", "-e", "-f", str(folder / "config")]
        with running(argv, folder / "log") as process:
            wait_for("sshd", lambda: listens(host.port) or process.poll() is not None)
            assert process.poll() is None, (folder / "log").read_text()
            yield host


def _keygen(path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)


def _sshd_config(host: SshHost) -> str:
    return f"""\
ListenAddress 127.0.0.1
Port {host.port}
HostKey {host.folder}/host
PidFile none
AuthorizedKeysFile {host.folder}/authorized
StrictModes no
UsePAM {"yes" if _is_locked() else "no"}
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
"""


def _is_locked() -> bool:
    """Whether we have no password: sshd then lets nobody in unless PAM decides."""
    if os.getuid() != 0:  # and sshd could not tell either
        return False
    return any(
        line.startswith(f"{getpass.getuser()}:!")
        for line in Path("/etc/shadow").read_text().splitlines()
    )


@dataclass(frozen=True)
class HttpHost:
    """git's HTTP server over a folder of repositories; `LOGIN` and `PASSWORD` get in."""

    folder: Path
    port: int

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def login(self) -> str:
        """The address with a login, as settings name it."""
        return f"http://{LOGIN}:{PASSWORD}@127.0.0.1:{self.port}"

    def url(self, repository: Path) -> str:
        """The address of a repository below the folder."""
        return f"{self.host}/{repository.relative_to(self.folder)}"


@contextlib.contextmanager
def http_host(folder: Path) -> Iterator[HttpHost]:
    """`git http-backend` over a folder, behind basic authentication."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.folder = folder
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield HttpHost(folder, server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    folder: Path


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """Answer as a CGI host does."""
        wanted = base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {wanted}":
            self.send_response(HTTPStatus.UNAUTHORIZED)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        environ = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.server.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REMOTE_USER": LOGIN,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        command = ["git", "http-backend"]
        done = subprocess.run(command, input=body, env=environ, capture_output=True, timeout=60)
        self._relay(done.stdout)

    do_POST = do_GET

    def _relay(self, answer: bytes) -> None:
        head, _, body = answer.partition(b"\r\n\r\n")
        headers = [line.split(": ", 1) for line in head.decode().splitlines()]
        status = next((text for name, text in headers if name == "Status"), "200")
        self.send_response(int(status.split()[0]))
        for name, text in headers:
            if name != "Status":
                self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""
