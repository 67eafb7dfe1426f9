"""Real services for tests: each in its own folder, on its own port or socket, gone afterwards.

A missing program is a failure that says what to install (`tests/setup.sh` does), never a skip.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DEADLINE_S = 60.0


def wait_for(what: str, ready: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Wait until `ready` says yes; fail the test with `what` if it does not in time."""
    end = time.monotonic() + deadline_s
    while not ready():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {deadline_s:.0f} s")
        time.sleep(0.05)


def program(name: str, *patterns: str) -> str:
    """The path of a program, also looked for where `patterns` (globs) say."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    for pattern in patterns:
        found = found or next(map(str, sorted(Path("/").glob(pattern), reverse=True)), None)
    assert found, f"{name} is not installed: run tests/setup.sh"
    return found


def free_port() -> int:
    """A TCP port of the loopback address that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether something accepts connections on a local port."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def running(
    argv: Sequence[str],
    log: Path,
    environ: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its output in `log`; it and its group are gone when the block ends."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if environ is None else dict(environ),
            start_new_session=True,
            user=user,
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes], limit_s: float = 20.0) -> None:
    """SIGTERM, then SIGKILL for the whole group."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(limit_s)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a path short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as folder:
        yield Path(folder)


@dataclass(frozen=True)
class Redis:
    """A Redis of the test's own, without persistence: a restart empties it.

    With `tls`, a folder of `cert.pem` and `key.pem`, it speaks nothing but TLS.
    """

    port: int
    folder: Path
    tls: Path | None = None

    @property
    def url(self) -> str:
        return f"redis{'s' if self.tls else ''}://127.0.0.1:{self.port}/0"

    @contextlib.contextmanager
    def run(self) -> Iterator[subprocess.Popen[bytes]]:
        """The server process; may be run again after it ended."""
        argv = [program("redis-server"), "--bind", "127.0.0.1"]
        if self.tls is None:
            argv += ["--port", str(self.port)]
        else:
            argv += ["--port", "0", "--tls-port", str(self.port)]
            argv += ["--tls-cert-file", f"{self.tls}/cert.pem", "--tls-key-file"]
            argv += [f"{self.tls}/key.pem", "--tls-ca-cert-file", f"{self.tls}/cert.pem"]
        argv += ["--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        with running(argv, self.folder / "redis.log") as process:
            wait_for("Redis", lambda: listens(self.port))
            yield process


@contextlib.contextmanager
def redis() -> Iterator[Redis]:
    """A running Redis."""
    with short_folder() as folder:
        service = Redis(free_port(), folder)
        with service.run():
            yield service


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL cluster of the test's own, run as another user where we are root."""

    port: int
    folder: Path
    user: str | None

    def url(self, database: str = "postgres") -> str:
        """The address of one of its databases."""
        return f"postgres://ci@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """A new, empty database; its address."""
        import psycopg2

        connection = psycopg2.connect(self.url())
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f'CREATE DATABASE "{database}"')
        finally:
            connection.close()
        return self.url(database)

    @contextlib.contextmanager
    def run(self) -> Iterator[subprocess.Popen[bytes]]:
        """The server process; may be run again on the same data after it ended."""
        argv = [_postgres("postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        argv += ["-h", "127.0.0.1", "-k", str(self.folder), "-c", "fsync=off"]
        with running(argv, self.folder / "postgres.log", user=self.user) as process:
            wait_for("PostgreSQL", self._answers)
            yield process

    def _answers(self) -> bool:
        import psycopg2

        try:
            psycopg2.connect(self.url(), connect_timeout=2).close()
        except psycopg2.OperationalError:
            return False
        return True


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A running, empty PostgreSQL."""
    with stopped_postgres() as service, service.run():
        yield service


@contextlib.contextmanager
def stopped_postgres() -> Iterator[Postgres]:
    """An empty PostgreSQL that does not run yet."""
    with short_folder() as folder:
        user = _someone_else()
        if user:
            shutil.chown(folder, user)
        initdb = [_postgres("initdb"), "-D", str(folder / "data"), "-U", "ci", "--no-sync"]
        initdb += ["--auth=trust", "--encoding=UTF8", "--locale=C"]
        with (folder / "initdb.log").open("wb") as log:
            subprocess.run(initdb, check=True, stdout=log, stderr=log, user=user, cwd=folder)
        yield Postgres(free_port(), folder, user)


def _postgres(name: str) -> str:
    return program(name, f"usr/lib/postgresql/*/bin/{name}")


def _someone_else() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


@contextlib.contextmanager
def haproxy(configuration: Path, port: int, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """HAProxy with this configuration and these variables, once it listens on `port`."""
    argv = [program("haproxy"), "-db", "-f", str(configuration)]
    with short_folder() as folder, running(argv, folder / "log", variables) as process:
        wait_for("HAProxy", lambda: listens(port) or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        yield process


def docker_engine() -> str:
    """The address of a Docker engine that answers."""
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    import docker
    from docker.errors import DockerException

    try:
        with contextlib.closing(docker.DockerClient(address, timeout=30)) as client:
            client.ping()
    except DockerException as error:
        raise AssertionError(f"no Docker engine at {address}: {error}") from None
    return address


@contextlib.contextmanager
def chromium(*, width: int = 1280, height: int = 900) -> Iterator[object]:
    """A headless Chromium steered by Selenium, with a profile of its own."""
    from selenium import webdriver

    with short_folder() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = program("chromium")
        for flag in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--force-color-profile=srgb",
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
        ):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(executable_path=program("chromedriver"))
        browser = webdriver.Chrome(options=options, service=service)
        try:
            yield browser
        finally:
            browser.quit()
