"""The supervisor with small programs: start, restart, stop, no orphans.

Each runs in a process of its own, because a supervisor owns its process's signals and children.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.services import stop, wait_for

Run = Callable[[str], subprocess.Popen[str]]

SLEEPER = """
import os, sys, time
from pathlib import Path
with (Path(sys.argv[1]) / "pids").open("a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(600)
"""

PRELUDE = f"""
import os, signal, sys, time
from pathlib import Path
from ciserver.embedded.process import Program
from ciserver.embedded.supervisor import Failed, Interrupted, Supervisor

here = Path(sys.argv[1])

def program(name, code, **more):
    argv = [sys.executable, "-c", code, str(here)]
    return Program(name, argv, os.environ, here / f"{{name}}.log", **more)

SLEEPER = {SLEEPER!r}

def say(text):
    print(text, flush=True)
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts a supervisor whose body is given; `here` is the test's folder."""
    started: list[subprocess.Popen[str]] = []

    def start(body: str) -> subprocess.Popen[str]:
        code = PRELUDE + "with Supervisor(say) as supervisor:\n" + textwrap.indent(body, "    ")
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        stop(process)  # type: ignore[arg-type]
        if process.stdout:
            process.stdout.close()


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def pids(folder: Path) -> list[int]:
    """The processes that the sleeper has been so far."""
    file = folder / "pids"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_a_program_that_dies_is_started_again(run: Run, tmp_path: Path) -> None:
    process = run('supervisor.start(program("sleeper", SLEEPER))\nsupervisor.watch()')
    wait_for("the first start", lambda: len(pids(tmp_path)) == 1)

    os.kill(pids(tmp_path)[0], signal.SIGKILL)

    wait_for("the second start", lambda: len(pids(tmp_path)) == 2)
    assert process.stdout is not None
    assert process.stdout.readline() == (
        f"sleeper ended (signal 9), starting it again; see {tmp_path / 'sleeper.log'}\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything(run: Run, tmp_path: Path, number: signal.Signals) -> None:
    process = run('supervisor.start(program("sleeper", SLEEPER))\nsupervisor.watch()')
    wait_for("the start", lambda: len(pids(tmp_path)) == 1)

    process.send_signal(number)

    assert process.wait(60) == 0
    assert gone(pids(tmp_path)[0])


def test_a_killed_supervisor_leaves_nobody(run: Run, tmp_path: Path) -> None:
    process = run('supervisor.start(program("sleeper", SLEEPER))\nsupervisor.watch()')
    wait_for("the start", lambda: len(pids(tmp_path)) == 1)

    process.kill()

    wait_for("the end of the child", lambda: gone(pids(tmp_path)[0]))


def test_orphans_of_children_are_killed_at_the_end(run: Run, tmp_path: Path) -> None:
    parent = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", {SLEEPER!r}, sys.argv[1]], start_new_session=True)
"""
    child = f"program('parent', {parent!r}, keep=False)"
    process = run(f"supervisor.start({child})\nsupervisor.watch()")
    wait_for("the orphan", lambda: len(pids(tmp_path)) == 1)

    process.terminate()

    assert process.wait(60) == 0
    assert gone(pids(tmp_path)[0])


def test_a_program_that_will_not_stop_is_killed(run: Run, tmp_path: Path) -> None:
    process = run(
        """
stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\\n" + SLEEPER
supervisor.start(program("stubborn", stubborn, stop_s=0.2))
supervisor.watch()
"""
    )
    wait_for("the start", lambda: len(pids(tmp_path)) == 1)

    process.terminate()

    assert process.wait(60) == 0
    assert gone(pids(tmp_path)[0])


def test_a_program_that_ends_before_it_is_ready_fails_with_its_last_words(run: Run) -> None:
    process = run(
        """
child = supervisor.start(program("broken", "raise SystemExit('no such table')"))
try:
    supervisor.wait_until(lambda: False, child, 60)
except Failed as failure:
    say(str(failure))
"""
    )

    output, _ = process.communicate(timeout=60)

    assert output == "broken ended (exit code 1): no such table\n"


def test_a_signal_ends_the_waiting_for_a_start(run: Run, tmp_path: Path) -> None:
    process = run(
        """
child = supervisor.start(program("sleeper", SLEEPER))
try:
    supervisor.wait_until(lambda: False, child, 60)
except Interrupted:
    say("interrupted")
"""
    )
    wait_for("the start", lambda: len(pids(tmp_path)) == 1)

    process.terminate()

    output, _ = process.communicate(timeout=60)
    assert output == "interrupted\n"


def test_run_gives_the_output_or_the_last_error_line(run: Run) -> None:
    process = run(
        """
say(supervisor.run(program("good", "print(42)")).strip())
try:
    supervisor.run(program("bad", "import sys; sys.exit('first line\\\\nlast line')"))
except Failed as failure:
    say(str(failure))
"""
    )

    output, _ = process.communicate(timeout=60)

    assert output == "42\nbad: last line\n"


def test_watching_until_a_program_ends_gives_its_exit_code(run: Run) -> None:
    process = run(
        """
child = supervisor.start(program("short", "raise SystemExit(3)", keep=False))
say(str(supervisor.watch(until=child)))
"""
    )

    output, _ = process.communicate(timeout=60)

    assert output == "3\n"


def test_the_supervisor_knows_no_django() -> None:
    code = "import sys, ciserver.cli.up; print([m for m in sys.modules if m.startswith('django')])"

    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert answer.stdout == "[]\n"
