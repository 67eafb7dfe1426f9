"""`ci up`: a whole server on this machine, until Ctrl-C."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import IO, Annotated

import typer

from ciserver import env
from ciserver.cli.terminal import Refused, Terminal
from ciserver.embedded import keys, lock, redis
from ciserver.embedded.process import Child
from ciserver.embedded.programs import Programs
from ciserver.embedded.supervisor import Failed, Interrupted, Supervisor

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "hello"
START_LIMIT_S = 60.0

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def up(
    build: Annotated[
        str, typer.Option(metavar="PATH", help="a repository to build once it runs")
    ] = "",
    example: Annotated[
        bool, typer.Option("--example", help="build the bundled example at the first start")
    ] = False,
) -> None:
    """Start everything on this machine: web, worker, agent, Redis. Ctrl-C stops it."""
    settings = _settings()
    if build:
        from ciserver.cli.subject import subject

        subject(build)  # what cannot be built is told before anything starts
    terminal = Terminal()
    for name in env.unknown():
        terminal.line(f"{name} is no setting of this server; docs/settings.md lists them all")
    with _data_dir(settings), _listen(settings) as listener:
        keys.ensure(settings.data_dir)
        settings = _settings()
        try:
            with Supervisor(terminal.line) as supervisor:
                server = Server(settings, terminal, supervisor)
                server.start(listener)
                server.build(build, example)
                supervisor.watch()
                terminal.line("stopping; what still runs is cancelled")
        except Interrupted:
            terminal.progress("")
        except (Failed, redis.Unusable) as failure:
            terminal.progress("")
            raise Refused(str(failure)) from None


class Server:
    """The parts of a server, started in the order they need each other."""

    def __init__(self, settings: env.Env, terminal: Terminal, supervisor: Supervisor) -> None:
        self._settings = settings
        self._terminal = terminal
        self._supervisor = supervisor
        self._programs = Programs(settings, env.child_environ())
        self._fresh = False

    def start(self, listener: socket.socket) -> None:
        """Start every part and say where the server is.

        Raises: Failed, redis.Unusable, Interrupted.
        """
        self._redis()
        self._terminal.progress("preparing the database …")
        prepared = json.loads(self._supervisor.run(self._programs.prepare()))
        self._fresh = bool(prepared["fresh"])
        self._terminal.progress("starting the web process and the worker …")
        web = self._supervisor.start(self._programs.web(listener.fileno()))
        self._supervisor.start(self._programs.worker())
        self._supervisor.wait_until(self._serves, web, START_LIMIT_S)
        if self._settings.agent:
            self._supervisor.start(self._programs.agent())
        (self._settings.data_dir / "address").write_text(self._own_url + "\n")
        self._terminal.progress("")
        self._greet(prepared["login"])

    def build(self, path: str, example: bool) -> None:
        """Build what the person asked for, with its log on this terminal."""
        if not path and example and self._fresh:
            path = str(example_repository(self._settings.data_dir))
        if path:
            self._supervisor.watch(until=self._supervisor.start(self._programs.build(path)))
            self._terminal.line(f"the server goes on at {self._settings.public_url}")

    def _redis(self) -> None:
        if not self._settings.own_redis:
            redis.check_external(self._settings.redis_url)
            return
        self._terminal.progress("starting Redis …")
        program = self._programs.redis(redis.find().path, redis.prepare(self._settings))
        child: Child = self._supervisor.start(program)
        path = env.socket_path(self._settings.data_dir)
        self._supervisor.wait_until(lambda: redis.answers(path), child, START_LIMIT_S)

    def _serves(self) -> bool:
        host, port = self._reachable
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as client:
            client.settimeout(START_LIMIT_S)
            try:
                client.connect((host, port))
                client.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
                return client.recv(64).startswith(b"HTTP/1.1 200")
            except OSError:
                return False

    @property
    def _reachable(self) -> tuple[str, int]:
        host = self._settings.host
        return ("127.0.0.1" if host in env.WILDCARDS else host), self._settings.port

    @property
    def _own_url(self) -> str:
        host, port = self._reachable
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def _greet(self, login: str) -> None:
        say = self._terminal.line
        say(f"ciserver runs at {self._settings.public_url}")
        say(f"log in (once, within 30 minutes): {self._settings.public_url}{login}")
        if self._fresh:
            say(f"agents can connect with token {self._settings.join_token}")
        say(f"Ctrl-C stops it; everything is kept in {self._settings.data_dir}")


def example_repository(data_dir: Path) -> Path:
    """The bundled example as a git repository of its own, made if it is not there yet."""
    target = data_dir / "examples" / "hello"
    if (target / ".git").is_dir():
        return target
    if not EXAMPLE.is_dir():
        raise Refused("the bundled example is not part of this installation")
    shutil.copytree(EXAMPLE, target, dirs_exist_ok=True)
    identity = ("-c", "user.name=ciserver", "-c", "user.email=ciserver@localhost")
    for command in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "--all"),
        (*identity, "commit", "--quiet", "--message=Say hello"),
    ):
        subprocess.run(["git", "-C", str(target), *command], check=True)
    return target


def _settings() -> env.Env:
    try:
        return env.read()
    except env.SettingError as error:
        raise Refused(str(error)) from None


def _data_dir(settings: env.Env) -> IO[str]:
    """Make the data dir and hold it."""
    folder = settings.data_dir
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return lock.hold(folder, settings.public_url)
    except lock.Taken as taken:
        raise Refused(str(taken)) from None
    except OSError as error:
        raise Refused(
            f"cannot write to the data dir {folder}: {error.strerror}; "
            "mend its permissions or set CISERVER_DATA_DIR"
        ) from None


def _listen(settings: env.Env) -> socket.socket:
    """The listening socket: ours, so that restarts of the web process refuse nobody."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise Refused(
            f"cannot listen on {settings.bind}: {error.strerror}; "
            "set CISERVER_BIND to another address, such as 127.0.0.1:8001"
        ) from None
    listener.listen(1024)
    return listener
