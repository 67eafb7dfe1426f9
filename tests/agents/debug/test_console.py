from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from agents.debug.console import REPLAY_BYTES, Console, TooMuch
from agents.drivers.base import DriverError, Shell
from agents.drivers.scripted import ScriptedShell
from pipeline import wire
from pipeline.wire import SHELL_INPUT_BYTES, SHELL_WINDOW_BYTES
from tests.services import wait_for

CHUNK = 16 * 1024


class Viewer:
    def __init__(self) -> None:
        self.words: list[wire.Shell] = []
        self.data = b""

    def send(self, message: wire.Shell) -> None:
        self.words.append(message)

    def send_bytes(self, data: bytes) -> None:
        self.data += data

    def sees(self, text: bytes) -> None:
        wait_for(f"{text!r}", lambda: text in self.data)


class Desk:
    """A console with a scripted shell, and what it told."""

    def __init__(self) -> None:
        self.shell = ScriptedShell(b"hello\r\n")
        self.opened: list[tuple[int, int]] = []
        self.refusal = ""
        self.typed = 0
        self.ended = threading.Event()
        self.console = Console(self._open, self._count, lambda reason: self.ended.set())

    def _open(self, cols: int, rows: int) -> Shell:
        self.opened.append((cols, rows))
        if self.refusal:
            raise DriverError(self.refusal)
        return self.shell

    def _count(self) -> None:
        self.typed += 1

    def attach(self, name: str = "a:1") -> Viewer:
        viewer = Viewer()
        self.console.attach(viewer, wire.Shell("attach", text=name, cols=90, rows=30))
        return viewer


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.console.close()
    assert made.shell.ended or not made.opened


def test_the_shell_begins_with_its_first_viewer(desk: Desk) -> None:
    viewer = desk.attach()

    viewer.sees(b"hello")
    assert desk.opened == [(90, 30)]
    assert viewer.words[0] == wire.Shell("attached", text="a:1")
    desk.console.type(b"typed")
    viewer.sees(b"typed")
    wait_for("it said", lambda: viewer.words[-1] == wire.Shell("took", bytes=5))
    assert desk.typed == 1


def test_the_next_viewer_sees_what_was_there_and_the_first_no_more(desk: Desk) -> None:
    first = desk.attach()
    first.sees(b"hello")

    second = desk.attach("b:1")
    desk.console.resize(100, 40)
    desk.shell.print(b"news")

    second.sees(b"hello\r\nnews")
    assert first.data == b"hello\r\n"
    assert desk.opened == [(90, 30)]
    assert desk.shell.sizes == [(90, 30), (100, 40)]


def test_output_stops_where_the_viewer_does(desk: Desk) -> None:
    viewer = desk.attach()
    viewer.sees(b"hello")
    for _ in range(20):
        desk.shell.print(b"x" * CHUNK)

    def full() -> bool:
        return SHELL_WINDOW_BYTES - CHUNK < len(viewer.data) <= SHELL_WINDOW_BYTES

    wait_for("a full window", full)
    desk.console.took(4 * CHUNK)
    wait_for("more", lambda: len(viewer.data) > SHELL_WINDOW_BYTES)
    assert len(viewer.data) <= SHELL_WINDOW_BYTES + 4 * CHUNK


def test_while_nobody_looks_only_the_end_is_kept(desk: Desk) -> None:
    desk.attach().sees(b"hello")
    desk.console.detach()
    for _ in range(20):
        desk.shell.print(b"x" * CHUNK)
    desk.shell.print(b"the end")
    wait_for("all read", lambda: desk.console._recent.endswith(b"the end"))

    assert len(desk.attach("b:1").data) == REPLAY_BYTES


def test_more_input_than_the_window_allows_is_refused(desk: Desk) -> None:
    desk.attach()
    desk.shell.write = lambda data: desk.ended.wait(60)  # type: ignore[method-assign,assignment]
    desk.console.type(b"x")
    with pytest.raises(TooMuch):
        desk.console.type(b"x" * 3 * SHELL_INPUT_BYTES)
    desk.ended.set()


def test_a_shell_that_is_left_ends_the_debugging(desk: Desk) -> None:
    desk.attach()
    desk.console.type(b"7\n")
    assert desk.ended.wait(60)
    assert desk.console.exit_code == 7


def test_that_there_can_be_no_shell_is_said(desk: Desk) -> None:
    desk.refusal = "the image has none"
    viewer = desk.attach()
    assert b"there can be no shell: the image has none" in viewer.data
    assert not desk.ended.is_set()

    desk.refusal = ""
    desk.attach("b:1").sees(b"hello")
