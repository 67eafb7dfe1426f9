"""The programs that a server consists of, and how each is started."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ciserver import env
from ciserver.embedded.process import Program

#: How large a program's log file may be when it is started again.
LARGEST_LOG_BYTES: Final = 20 * 1024 * 1024

#: The pool, the queue, and none of the chatter between workers.
WORKER_FLAGS: Final = (
    "--pool=threads",
    "--concurrency=4",
    "--queues=ci.srv.work",
    "--without-gossip",
    "--without-mingle",
    "--without-heartbeat",
    "--loglevel=WARNING",
)


class Programs:
    """Makes the `Program` of each part. All share the data dir and its `log` folder."""

    def __init__(self, settings: env.Env, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = {
            **environ,
            "DJANGO_SETTINGS_MODULE": "ciserver.settings",
            "CISERVER_DATA_DIR": str(settings.data_dir),
            "PYTHONUNBUFFERED": "1",
        }

    def redis(self, binary: str, configuration: Path) -> Program:
        """The own Redis."""
        return self._program("redis", [binary, str(configuration)], stop_s=5)

    def prepare(self) -> Program:
        """Migrations and first rows; runs to its end."""
        return Program("prepare", _python("django", "prepare"), self._environ)

    def web(self, descriptor: int) -> Program:
        """The web process, on a socket that listens already."""
        argv = _python("ciserver.web", str(descriptor))
        return self._program("web", argv, descriptors=(descriptor,), stop_s=10)

    def worker(self) -> Program:
        """The server worker: tasks and loops."""
        argv = _python("celery", "-A", "ciserver", "worker", *WORKER_FLAGS)
        return self._program("worker", argv, stop_s=10)

    def agent(self) -> Program:
        """An agent on this machine: SIGTERM drains it, a second one cancels what it runs."""
        settings = self._settings
        environ = {
            "CISERVER_AGENT_STATE_DIR": str(settings.data_dir / "agent"),
            "CISERVER_AGENT_EXEC_UNTRUSTED": "true",  # embedded mode is no boundary and says so
            "CISERVER_AGENT_GIT_SSH_KEY": settings.git_ssh_key,
            "CISERVER_AGENT_GIT_SSH_KNOWN_HOSTS": settings.git_ssh_known_hosts,
            **self._environ,
            "CISERVER_AGENT_SERVER": f"http://{_reachable(settings.host)}:{settings.port}",
            "CISERVER_AGENT_TOKEN": settings.join_token,
            "CISERVER_AGENT_REDIS_URL": settings.local_agent_redis_url,
        }
        return Program(
            "agent",
            _python("celery", "-A", "agents", "worker"),
            environ,
            log=self._log("agent"),
            stop_signals=(signal.SIGTERM, signal.SIGTERM),
            stop_s=15,
        )

    def build(self, path: str) -> Program:
        """`ci build` on this terminal."""
        argv = _python("ciserver.cli", "build", path)
        return Program("build", argv, self._environ, keep=False)

    def _program(
        self, name: str, argv: list[str], *, descriptors: tuple[int, ...] = (), stop_s: float
    ) -> Program:
        return Program(
            name, argv, self._environ, self._log(name), descriptors=descriptors, stop_s=stop_s
        )

    def _log(self, name: str) -> Path:
        """The program's log file; one that has grown large becomes the old one."""
        folder = self._settings.data_dir / "log"
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.log"
        if path.exists() and path.stat().st_size > LARGEST_LOG_BYTES:
            path.replace(folder / f"{name}.old.log")
        return path


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _reachable(host: str) -> str:
    """A host that a process on this machine can connect to."""
    if host in env.WILDCARDS:
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
