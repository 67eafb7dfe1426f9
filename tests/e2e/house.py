"""A real `ci up` for a test: in a folder of its own, on a port of its own, with real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests import services

CI = (sys.executable, "-m", "ciserver.cli")
ROOT = Path(__file__).resolve().parent.parent.parent
READY = "Ctrl-C stops it"
LIMIT_S = 120.0


@dataclass
class House:
    """A data dir, the server on it, and the command line that talks to it."""

    folder: Path
    port: int = field(default_factory=services.free_port)
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def environ(self) -> dict[str, str]:
        """What every command of this house sees."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "CISERVER_DATA_DIR": str(self.data_dir),
            "CISERVER_BIND": f"127.0.0.1:{self.port}",
            **self.extra,
        }

    def ci(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run `ci` to its end."""
        return self.run([*CI, *arguments], **extra)

    def run(self, argv: Sequence[str], **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            argv,
            cwd=self.folder,
            env={**self.environ, **extra},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    @contextlib.contextmanager
    def up(self, *options: str) -> Iterator[Up]:
        """A running `ci up`, once it says that it is ready."""
        output = self.folder / f"up-{len(list(self.folder.glob('up-*')))}.txt"
        with services.running([*CI, "up", *options], output, self.environ) as process:
            started = Up(process, output)
            services.wait_for(
                "the start", lambda: READY in started.text or process.poll() is not None, LIMIT_S
            )
            assert process.poll() is None, started.text
            yield started

    def processes(self) -> dict[int, str]:
        """The command lines of all living processes of this house: they carry its data dir."""
        mark = f"CISERVER_DATA_DIR={self.data_dir}".encode()
        return {
            int(entry.name): _read(entry / "cmdline").replace(b"\0", b" ").decode()
            for entry in Path("/proc").iterdir()
            if entry.name.isdecimal() and mark in _read(entry / "environ")
        }

    def process(self, word: str) -> int:
        """The number of the process that has this word in its command line."""
        return next(pid for pid, command in self.processes().items() if word in command)


@dataclass
class Up:
    """A `ci up` that runs."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def text(self) -> str:
        """What it has written so far."""
        return self.output.read_text(errors="replace")

    def interrupt(self) -> int:
        """Press Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(LIMIT_S)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


def repository(folder: Path, pipeline: str | None, *, commit: bool = True) -> Path:
    """A git repository with this pipeline file; None: without one."""
    folder.mkdir(parents=True)
    _git(folder, "init", "--quiet", "--initial-branch=main")
    if commit:
        save(folder, pipeline)
    return folder


def save(folder: Path, pipeline: str | None) -> None:
    """Commit a pipeline file."""
    if pipeline is not None:
        (folder / ".drone.yml").write_text(pipeline)
    _git(folder, "add", "--all")
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.com")
    _git(folder, *identity, "commit", "--quiet", "--allow-empty", "--message=A change")


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, timeout=60)


def exec_pipeline(*commands: str) -> str:
    """A pipeline of one step on the host."""
    lines = "".join(f"  - {command!r}\n" for command in commands)
    return f"kind: pipeline\ntype: exec\nname: main\nsteps:\n- name: step\n  commands:\n{lines}"
