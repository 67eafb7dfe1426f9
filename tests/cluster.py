"""A whole server of separate processes that a test can kill, cut off and start again one by one.

The programs are those that `ci up` starts (`ciserver.embedded.programs`), without its supervisor,
so that nothing is mended behind the test's back. Agents reach the server through a `Proxy` that
loses answers and cuts lines on demand.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis as redis_py

from agents.drivers.docker import DockerDriver
from agents.option_table import Options
from ciserver import env
from ciserver.cli.client import Access, Client
from ciserver.embedded import keys
from ciserver.embedded import redis as own_redis
from ciserver.embedded.process import Program, descendants
from ciserver.embedded.programs import Programs
from pipeline.routing import redis_py_url
from tests.proxy import Proxy
from tests.services import free_port, listens, running, short_folder, wait_for

#: How long a build of a test may take on a loaded machine.
BUILD_S = 120.0
#: Lease times of fault tests: a lost agent shows within seconds instead of minutes.
SHORT_LEASES = {
    "CISERVER_LEASE_REPORT_S": "1",
    "CISERVER_LEASE_LOST_S": "6",
    "CISERVER_LOST_GRACE_S": "5",
    "CISERVER_CLOSING_S": "10",
}
#: Those of a server nobody has set up.
DEFAULT_LEASES = {"lease_report_s": "15", "lease_lost_s": "45", "lost_grace_s": "600"}
OPEN = ("pending", "running", "waiting_on_dependencies", "blocked")


@dataclass
class Part:
    """One program and the process that runs it now."""

    program: Program
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the program; its output goes to its log."""
        assert self.process is None or self.process.poll() is not None, "it runs already"
        with contextlib.ExitStack() as stack:
            log = self.program.log
            output = stack.enter_context(log.open("ab")) if log else subprocess.DEVNULL
            self.process = subprocess.Popen(
                list(self.program.argv),
                env=dict(self.program.environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=self.program.descriptors,
                start_new_session=True,
            )

    def kill(self) -> None:
        """kill -9 of the process itself; its children stay as they are."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        """End the process, then everything that descends from it: it sees none of them die."""
        if self.process is None:
            return
        family = [self.process.pid, *descendants(self.process.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Cluster:
    """The parts and the ways to talk to them."""

    folder: Path
    settings: env.Env
    programs: Programs
    proxy: Proxy
    listener: socket.socket
    web: Part
    worker: Part
    redis: Part
    client: Client
    agents: dict[str, Part] = field(default_factory=dict)

    def agent(
        self, name: str = "agent-one", *, environ: Mapping[str, str] = {}, **options: str
    ) -> Part:
        """An agent, started at once; `options` are its settings without their prefix, `environ`
        are further variables."""
        state = self.folder / f"state-{name}"
        program = self.programs.agent()
        variables = {
            **program.environ,
            **environ,
            "CISERVER_AGENT_SERVER": self.proxy.url,
            "CISERVER_AGENT_STATE_DIR": str(state),
            "CISERVER_AGENT_NAME": name,
            "CISERVER_AGENT_BACKOFF": "1",
            "CISERVER_AGENT_BACKOFF_MAX": "2",
            "CISERVER_AGENT_ISOLATION": "shell",
            **{f"CISERVER_AGENT_{key.upper()}": value for key, value in options.items()},
        }
        log = self.settings.data_dir / "log" / f"{name}.log"
        part = Part(Program("agent", program.argv, variables, log))
        part.start()
        self.agents[name] = part
        return part

    def repo(self, pipeline: str, name: str = "project", files: Mapping[str, str] = {}) -> str:
        """A git repository with this pipeline, registered and trusted; its slug."""
        folder = self.folder / "repos" / name
        folder.mkdir(parents=True)
        for path, text in {".drone.yml": pipeline, **files}.items():
            (folder / path).write_text(text)
        identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.com")
        for command in (
            ("init", "--quiet", "--initial-branch=main"),
            ("add", "--all"),
            (*identity, "commit", "--quiet", "--message=Begin"),
        ):
            subprocess.run(["git", "-C", str(folder), *command], check=True)
        slug = str(self.client.register(str(folder))["slug"])
        self.client.call("PATCH", f"/api/repos/{slug}", json={"trusted": True})
        return slug

    def build(self, slug: str, **params: str) -> int:
        """A new build of the repo's head; its number."""
        return int(self.client.create(slug, "", "", params)["number"])

    def ci(self, output: Path, *words: str) -> contextlib.AbstractContextManager[Any]:
        """The command `ci` as a person of this server runs it."""
        environ = {**self.programs.web(0).environ, "CISERVER_TOKEN": self.client.access.token}
        environ["CISERVER_SERVER"] = self.client.access.url
        return running([sys.executable, "-m", "ciserver.cli", *words], output, environ)

    def status(self, slug: str, number: int) -> str:
        """The build's status now."""
        return str(self.client.build(slug, number)["status"])

    def ended(self, slug: str, number: int, limit_s: float = BUILD_S) -> dict[str, Any]:
        """The build, once it has ended."""
        wait_for(
            f"{slug} #{number} ends",
            lambda: self.status(slug, number) not in OPEN,
            limit_s,
        )
        return dict(self.client.build(slug, number))

    def wait_status(self, slug: str, number: int, status: str, limit_s: float = BUILD_S) -> None:
        """Wait until the build has this status."""
        wait_for(
            f"{slug} #{number} is {status}",
            lambda: self.status(slug, number) == status,
            limit_s,
        )

    def log(self, slug: str, number: int, stage: int = 1, step: int = 1) -> list[str]:
        """The stored lines of a step so far, without their ends; [] if there is no log yet."""
        path = f"/api/repos/{slug}/builds/{number}/logs/{stage}/{step}/text"
        answer = self.client.raw("GET", path)
        if answer.status_code == 404:
            return []
        answer.raise_for_status()
        return str(answer.text).splitlines()

    def wait_line(self, slug: str, number: int, line: str, step: int = 1) -> None:
        """Wait until the step's log has this line at the server."""
        wait_for(f"the line {line!r}", lambda: line in self.log(slug, number, step=step))

    def agent_log(self, name: str = "agent-one") -> str:
        """What an agent has written so far."""
        return (self.settings.data_dir / "log" / f"{name}.log").read_text()

    def raw_redis(self) -> Any:
        """A connection to Redis with the server's rights."""
        return redis_py.Redis.from_url(redis_py_url(self.settings.redis_url))

    def wait_web(self) -> None:
        """Wait until the web process answers."""
        wait_for("the web process answers", self._web_answers)

    def _web_answers(self) -> bool:
        try:
            return self.client.raw("GET", "/healthz").status_code == 200
        except Exception:
            return False


class RawClient(Client):
    """The command line's client, and answers as they are."""

    def raw(self, method: str, path: str) -> Any:
        """The answer, whatever its status."""
        return self._http.request(method, path)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()


@contextlib.contextmanager
def cluster(**settings: str) -> Iterator[Cluster]:
    """A running server without agents. `settings` are variables without `CISERVER_`."""
    with short_folder() as folder, Proxy() as proxy:
        built = _build(folder, proxy, {key.upper(): value for key, value in settings.items()})
        try:
            _start(built)
            yield built
        finally:
            _show_logs(built)
            for part in (*built.agents.values(), built.worker, built.web, built.redis):
                part.stop()
            _sweep(built)
            built.listener.close()
            built.client.close()


def _build(folder: Path, proxy: Proxy, given: Mapping[str, str]) -> Cluster:
    port = free_port()
    data_dir = folder / "data"
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("CISERVER_", "DRONE_"))},
        **SHORT_LEASES,
        "CISERVER_DATA_DIR": str(data_dir),
        "CISERVER_BIND": f"127.0.0.1:{port}",
        **{f"CISERVER_{key}": value for key, value in given.items()},
    }
    keys.ensure(data_dir)
    settings = env.read(environ)
    programs = Programs(settings, environ)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(256)
    proxy.target = ("127.0.0.1", port)
    redis = programs.redis(own_redis.find().path, own_redis.prepare(settings))
    return Cluster(
        folder,
        settings,
        programs,
        proxy,
        listener,
        Part(programs.web(listener.fileno())),
        Part(programs.worker()),
        Part(redis),
        RawClient(Access(f"http://127.0.0.1:{port}", "")),
    )


def _start(built: Cluster) -> None:
    built.redis.start()
    path = env.socket_path(built.settings.data_dir)
    wait_for("Redis answers", lambda: own_redis.answers(path))
    prepare = built.programs.prepare()
    answer = subprocess.run(
        list(prepare.argv), env=dict(prepare.environ), check=True, capture_output=True, text=True
    )
    assert json.loads(answer.stdout)["fresh"]
    token = (built.settings.keys_dir / "user_token").read_text().strip()
    built.client.close()
    built.client = RawClient(Access(f"http://127.0.0.1:{built.settings.port}", token))
    built.web.start()
    built.worker.start()
    built.wait_web()
    assert listens(built.settings.port)


def _sweep(built: Cluster) -> None:
    """Remove what killed agents left in the machine's engine, as their next life would."""
    for part in built.agents.values():
        given = part.program.environ
        if given["CISERVER_AGENT_ISOLATION"] == "docker" and not given.get(
            "CISERVER_AGENT_DOCKER_HOST"
        ):
            state_dir = Path(given["CISERVER_AGENT_STATE_DIR"])
            DockerDriver(Options(server="http://ci", token="x", state_dir=state_dir)).sweep()


def _show_logs(built: Cluster) -> None:
    """Print the end of each program's log; pytest shows it where a test failed."""
    for path in sorted((built.settings.data_dir / "log").glob("*.log")):
        print(f"--- {path.name}")
        print(path.read_bytes()[-6000:].decode(errors="replace"))
