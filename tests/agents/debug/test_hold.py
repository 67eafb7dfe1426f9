from __future__ import annotations

import threading

from agents.debug.hold import Hold


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def hold(clock: Clock) -> Hold:
    return Hold(3, 1, 60.0, 150.0, clock)


def test_it_lasts_until_nobody_has_typed_for_a_while() -> None:
    clock = Clock()
    kept = hold(clock)
    assert kept.left_s() == 60

    clock.now += 50
    kept.touch()

    assert kept.left_s() == 60
    clock.now += 60
    assert kept.wait() == "its time was over"


def test_it_never_lasts_longer_than_its_limit() -> None:
    clock = Clock()
    kept = hold(clock)
    for _ in range(4):
        clock.now += 35
        kept.touch()
    assert kept.left_s() == 10


def test_the_first_reason_counts() -> None:
    kept = hold(Clock())
    waiting = threading.Thread(target=kept.wait)
    waiting.start()

    kept.end("somebody ended it")
    kept.end("cancelled")

    waiting.join(60)
    assert kept.wait() == "somebody ended it"
