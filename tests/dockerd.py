"""A Docker engine of a test's own: real, in a folder, ended and started at will."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from agents.drivers import docker_engine, docker_leftovers
from agents.drivers.docker_container import OWNER_LABEL
from agents.drivers.docker_engine import EngineAway
from agents.option_table import Options
from tests.services import program, wait_for


class Engine:
    """A dockerd and a containerd in a folder of their own, as an init system runs them.

    dockerd is ended and started again; containerd and the containers go on meanwhile.
    """

    def __init__(self, folder: Path, words: Sequence[str] = ()) -> None:
        self._folder = folder
        self._words = words
        self.address = f"unix://{folder}/d.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._containerd = self._start_containerd()
        self._asks = docker_engine.Engine(
            Options(server="http://ci", token="x", docker_host=self.address)
        )

    def _start_containerd(self) -> subprocess.Popen[bytes]:
        config = self._folder / "containerd.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        return self._run(
            "containerd",
            f"--config={config}",
            f"--address={self._folder}/c.sock",
            f"--root={self._folder}/containerd",
            f"--state={self._folder}/state",
        )

    def _run(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen([program(name), *words], stdout=log, stderr=log)

    def start(self, *, live_restore: bool = True) -> None:
        (self._folder / "pid").unlink(missing_ok=True)
        self._process = self._run(
            "dockerd",
            f"--host={self.address}",
            f"--containerd={self._folder}/c.sock",
            f"--data-root={self._folder}/data",
            f"--exec-root={self._folder}/exec",
            f"--pidfile={self._folder}/pid",
            # no word of bridges: `none` would remove the one of this machine's own engine
            "--iptables=false",
            f"--live-restore={str(live_restore).lower()}",
            *self._words,
        )
        wait_for("the engine answers", self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
        try:
            self._asks.ping()
        except EngineAway:
            return False
        return True

    def end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def kill_containers(self) -> None:
        """Kill the containers, whose keepers name the engine's folder."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                keeper = words[0].endswith(b"containerd-shim-runc-v2")
                if keeper and f"{self._folder}/c.sock".encode() in words:
                    self._kill_below(path.parent.name)

    def _kill_below(self, keeper: str) -> None:
        for pid in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)

    def _empty(self) -> None:
        """Remove what agents left: an engine that ends leaves its networks on this machine, whose
        engines find no room for another after thirty."""
        for kind, name, _ in list(self._asks.labelled(OWNER_LABEL)):
            docker_leftovers.remove(self._asks, kind, name)

    def close(self) -> None:
        self.kill_containers()
        if self._process is not None and self._process.poll() is None:
            self._empty()
        self.end(signal.SIGTERM)
        self._containerd.terminate()
        self._containerd.wait(60)
        for mount in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            place = mount.split()[1]
            if place.startswith(str(self._folder)):
                subprocess.run(["umount", "--lazy", place], check=False)
        shutil.rmtree(self._folder, ignore_errors=True)
