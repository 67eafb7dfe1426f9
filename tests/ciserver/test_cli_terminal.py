from __future__ import annotations

import io
import subprocess
import sys

from ciserver.cli.terminal import CLEAR_LINE, Terminal


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_lines_and_nothing_else() -> None:
    stream = io.StringIO()
    terminal = Terminal(stream)

    terminal.progress("waiting …")
    terminal.line(terminal.paint("done", "32"))

    assert stream.getvalue() == "done\n"


def test_progress_makes_room_for_lines_and_comes_back() -> None:
    stream = Screen()
    terminal = Terminal(stream)

    terminal.progress("waiting …")
    terminal.line("news")
    terminal.progress("")

    assert stream.getvalue() == f"waiting …{CLEAR_LINE}news\nwaiting …{CLEAR_LINE}"


def test_a_command_imports_no_other_and_no_django() -> None:
    code = (
        "import sys; from ciserver.cli import app;"
        "print([m for m in sys.modules if m.split('.')[0] in"
        " ('django', 'httpx', 'websockets', 'celery', 'redis') or m.startswith('ciserver.cli.')])"
    )

    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert answer.stdout == "[]\n"
