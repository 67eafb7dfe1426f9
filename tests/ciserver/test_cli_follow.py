from __future__ import annotations

from typing import Any

import pytest

from ciserver.cli.build import exit_code
from ciserver.cli.follow import _awaited, _ended_before, _Tail
from ciserver.cli.log import Chosen
from ciserver.cli.terminal import Refused


def frame(first: int, *lines: str, **more: Any) -> dict[str, Any]:
    return {"first": first, "lines": list(lines), "open": False, "end": None, **more}


def test_an_unfinished_line_waits_for_its_rest() -> None:
    written: list[str] = []
    tail = _Tail(written.append)

    tail.take(frame(0, "one", "tw", open=True))
    assert written == ["one"]
    tail.take(frame(2, "o", "three", end=4))

    assert written == ["one", "two", "three"]
    assert tail.ended


def test_an_unfinished_last_line_is_written_at_the_end() -> None:
    written: list[str] = []
    tail = _Tail(written.append)

    tail.take(frame(0, "no newline", open=True))
    tail.take(frame(1, end=1))

    assert written == ["no newline"]


def test_the_position_is_where_to_go_on() -> None:
    tail = _Tail(lambda _text: None)

    tail.take(frame(5, "a", "b"))

    assert (tail.position, tail.ended) == (7, False)


@pytest.mark.parametrize(
    ("build", "code"),
    [
        ({"status": "success"}, 0),
        ({"status": "failure", "stages": [{"started": 5}]}, 1),
        ({"status": "killed", "stages": []}, 1),
        ({"status": "declined", "stages": []}, 1),
        ({"status": "error", "stages": [{"started": 5}]}, 1),
        ({"status": "error", "stages": []}, 2),
        ({"status": "error", "stages": None}, 2),
    ],
)
def test_exit_codes(build: dict[str, Any], code: int) -> None:
    assert exit_code(build) == code


@pytest.mark.parametrize(
    ("stages", "text"),
    [
        (
            [
                {"name": "a", "status": "running", "steps": [{"name": "s", "status": "running"}]},
                {"name": "b", "status": "running", "steps": [{"name": "t", "status": "running"}]},
            ],
            "running a/s, b/t …",
        ),
        (
            [{"name": "a", "status": "pending", "os": "linux", "arch": "arm64", "type": "docker"}],
            "a waits for an agent (docker on linux/arm64) …",
        ),
        ([{"name": "a", "status": "blocked"}], "a waits for approval …"),
        ([], "waiting …"),
    ],
)
def test_what_is_awaited_is_said(stages: list[Any], text: str) -> None:
    assert _awaited({"status": "running", "stages": stages}) == text


STAGE = {"name": "main", "number": 1, "steps": [{"name": "unit", "number": 2}]}


def test_a_log_waits_for_those_of_steps_that_had_ended() -> None:
    def step(id: int, started: int, stopped: int) -> dict[str, int]:
        return {"id": id, "started": started, "stopped": stopped}

    beside, first, last = step(1, 10, 30), step(2, 10, 12), step(3, 12, 0)
    build = {"stages": [{"steps": [beside, first]}, {"steps": [last, step(4, 5, 6)]}]}

    assert _ended_before(build, last) == [2]
    assert _ended_before(build, beside) == []


def test_steps_are_chosen_by_name_or_number() -> None:
    step = STAGE["steps"][0]  # type: ignore[index]

    assert Chosen("", "")(STAGE, step)
    assert Chosen("main", "2")(STAGE, step)
    assert not Chosen("main", "lint")(STAGE, step)


def test_a_choice_that_is_not_there_is_refused_with_what_is() -> None:
    with pytest.raises(Refused, match="there is no stage other; there are main"):
        Chosen("other", "").check({"stages": [STAGE]})
    with pytest.raises(Refused, match="there is no step lint; there are unit"):
        Chosen("1", "lint").check({"stages": [STAGE]})
