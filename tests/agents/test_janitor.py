"""The janitor: everything brought is done, by whomever."""

from __future__ import annotations

import threading

import structlog

from agents.janitor import Janitor


def test_everything_is_done_before_it_closes() -> None:
    janitor, done = Janitor(), []
    for number in range(100):
        janitor.do(lambda number=number: done.append(number))  # type: ignore[misc]
    janitor.close()
    janitor.close()
    assert sorted(done) == list(range(100))


def test_nobody_waits_for_a_slow_task() -> None:
    janitor, gate, done = Janitor(), threading.Event(), threading.Event()
    janitor.do(lambda: bool(gate.wait(60)))  # type: ignore[arg-type, return-value]
    janitor.do(done.set)
    assert not done.is_set()
    gate.set()
    assert done.wait(60)
    janitor.close()


def test_after_its_end_tasks_are_done_at_once() -> None:
    janitor, done = Janitor(), []
    janitor.close()
    janitor.do(lambda: done.append(1))
    assert done == [1]


def test_a_task_that_fails_is_logged_and_the_next_is_done() -> None:
    janitor, done = Janitor(), threading.Event()

    def fails() -> None:
        raise OSError("no such luck")

    with structlog.testing.capture_logs() as lines:
        janitor.do(fails)
        janitor.do(done.set)
        janitor.close()
    assert done.is_set()
    assert lines[0]["event"] == "janitor.failed"
