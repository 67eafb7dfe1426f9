"""Run a program in a process of its own that can neither run long nor grow large."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from builds.evaluate.errors import LIMIT, Failed

JSONNET: Final = "jsonnet"
STARLARK: Final = "starlark"
TEMPLATE: Final = "template"

_ROOT = str(Path(__file__).resolve().parents[2])
_START = (
    "import sys; sys.path.insert(0, sys.argv[1])\nfrom builds.evaluate.child import main\nmain()"
)
#: A line of the other process is no longer than this: its text, escaped.
_MAX_LINE: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use. `imports`: files that Jsonnet may import, 0 forbids it."""

    steps: int = 50_000
    output_bytes: int = 1_000_000
    imports: int = 0
    cpu_s: int = 5
    wall_s: float = 30.0
    memory_bytes: int = 768 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Program:
    """A source text in one of the languages, and the data it sees."""

    language: str
    name: str
    source: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """The pipeline file that a program makes, and what it printed."""

    text: str
    printed: tuple[str, ...] = ()


Fetch = Callable[[str], str | None]


def run(program: Program, limits: Limits, fetch: Fetch) -> Result:
    """Run a program; `fetch` reads a file of the same commit for it, None if there is none.

    Raises: Failed.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", _START, _ROOT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        cwd="/",
        text=True,
        encoding="utf-8",
    )
    deadline = threading.Timer(limits.wall_s, process.kill)
    deadline.start()
    try:
        with process:
            answer = _talk(process, program, limits, fetch)
            process.kill()
    finally:
        deadline.cancel()
    if answer is None:
        message = f"the program needs more than {limits.cpu_s} s or too much memory"
        raise Failed(message, code=LIMIT)
    if "failed" in answer:
        place = answer.get("line", 0), answer.get("column", 0)
        raise Failed(answer["failed"], *place, answer["code"])
    return Result(answer["text"], tuple(answer["printed"]))


def _talk(
    process: subprocess.Popen[str], program: Program, limits: Limits, fetch: Fetch
) -> dict[str, Any] | None:
    """Send the request and answer imports until the result comes; None if the process died."""
    request = dataclasses.asdict(program) | {"limits": dataclasses.asdict(limits)}
    try:
        _send(process.stdin, request)
        while message := _receive(process.stdout):
            if "import" not in message:
                return message
            _send(process.stdin, {"text": fetch(message["import"])})
    except BrokenPipeError:
        return None
    return None


def _send(pipe: IO[str] | None, message: Mapping[str, Any]) -> None:
    if pipe is not None:
        pipe.write(json.dumps(message) + "\n")
        pipe.flush()


def _receive(pipe: IO[str] | None) -> dict[str, Any] | None:
    line = pipe.readline(_MAX_LINE) if pipe is not None else ""
    if not line.endswith("\n"):
        return None
    message: dict[str, Any] = json.loads(line)
    return message
