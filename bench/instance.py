"""A real `ci up` on loopback, with a data dir of its own, for one benchmark."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ciserver.cli.client import Access, Client

START_S = 60.0
BUILD_S = 300.0
OPEN = ("pending", "running", "waiting_on_dependencies", "blocked")


@dataclass
class Instance:
    """The running server and what benchmarks ask of it."""

    folder: Path
    data_dir: Path
    process: subprocess.Popen[bytes]
    client: Client

    def repo(self, pipeline: str, name: str = "project") -> str:
        """A registered, trusted repository with this pipeline; its slug."""
        folder = self.folder / "repos" / name
        folder.mkdir(parents=True)
        (folder / ".drone.yml").write_text(pipeline)
        identity = ("-c", "user.name=Bench", "-c", "user.email=bench@example.com")
        for command in (
            ("init", "-q", "-b", "main"),
            ("add", "."),
            (*identity, "commit", "-qm", "x"),
        ):
            subprocess.run(["git", "-C", str(folder), *command], check=True)
        slug = str(self.client.register(str(folder))["slug"])
        self.client.call("PATCH", f"/api/repos/{slug}", json={"trusted": True})
        return slug

    def build(self, slug: str) -> int:
        """A new build; its number."""
        return int(self.client.create(slug, "", "", {})["number"])

    def ended(self, slug: str, number: int, every_s: float = 0.02) -> dict[str, Any]:
        """The build once it has ended; it must have succeeded. Looking costs the server time."""
        end = time.monotonic() + BUILD_S
        while (build := self.client.build(slug, number))["status"] in OPEN:
            assert time.monotonic() < end, build
            time.sleep(every_s)
        assert build["status"] == "success", build
        return dict(build)

    @contextlib.contextmanager
    def database(self, name: str) -> Iterator[sqlite3.Connection]:
        """One of the server's databases, read only."""
        path = self.data_dir / f"{name}.sqlite3"
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        with contextlib.closing(connection):
            yield connection


@contextlib.contextmanager
def instance(**settings: str) -> Iterator[Instance]:
    """Start `ci up`; `settings` are variables of the server or `agent_…` ones of its agent."""
    with tempfile.TemporaryDirectory(prefix="cb-", dir="/tmp") as name:
        folder = Path(name)
        data_dir = folder / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("CISERVER_", "DRONE_"))},
            "CISERVER_DATA_DIR": str(data_dir),
            "CISERVER_BIND": f"127.0.0.1:{port}",
            "CISERVER_AGENT_ISOLATION": "shell",
            **{f"CISERVER_{key.upper()}": value for key, value in settings.items()},
        }
        with (folder / "up.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ciserver.cli", "up"],
                env=environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            token = _wait_for(data_dir / "address", data_dir / "keys" / "user_token", process)
            client = Client(Access(f"http://127.0.0.1:{port}", token))
            yield Instance(folder, data_dir, process, client)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def _wait_for(address: Path, token: Path, process: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + START_S
    while not (address.exists() and token.exists()):
        assert process.poll() is None, "ci up ended"
        assert time.monotonic() < end, "ci up did not start"
        time.sleep(0.05)
    return token.read_text().strip()
