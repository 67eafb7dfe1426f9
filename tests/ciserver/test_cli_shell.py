"""What `ci shell` decides before and while there is a terminal."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from ciserver.cli.shell import chosen
from ciserver.cli.shellview import Escape
from ciserver.cli.terminal import Refused
from tests.e2e.house import CI


def hold(stage: int, step: int, name: str) -> dict[str, Any]:
    return {"id": 7, "stage": stage, "stage_name": f"s{stage}", "step": step, "name": name}


TWO = [hold(1, 2, "lint"), hold(1, 3, "test")]


@pytest.mark.parametrize(
    ("holds", "stage", "step", "name"),
    [
        (TWO[:1], "", "", "lint"),
        (TWO, "", "test", "test"),
        (TWO, "s1", "2", "lint"),
        ([*TWO, hold(2, 1, "deploy")], "2", "", "deploy"),
    ],
    ids=["only", "by-step", "by-numbers", "by-stage"],
)
def test_the_step_that_is_meant(holds: Any, stage: str, step: str, name: str) -> None:
    assert chosen(holds, "o/n#7", stage, step)["name"] == name


@pytest.mark.parametrize(
    ("holds", "stage", "said"),
    [
        ([], "", "nothing of o/n#7 waits for debugging"),
        (TWO, "other", "that does not wait for debugging; what does: s1/lint, s1/test"),
        (TWO, "", "say which, .* s1/lint, s1/test"),
    ],
    ids=["none", "another", "several"],
)
def test_what_is_refused(holds: Any, stage: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        chosen(holds, "o/n#7", stage, "")


@pytest.mark.parametrize(
    ("keys", "out", "left"),
    [
        ([b"ls\r"], b"ls\r", False),
        ([b"~."], b"", True),
        ([b"ls\r", b"~", b"."], b"ls\r", True),
        ([b"a~."], b"a~.", False),
        ([b"\r~~."], b"\r~.", False),
        ([b"\r~x"], b"\r~x", False),
    ],
    ids=["plain", "at-once", "in-pieces", "within-a-line", "doubled", "another"],
)
def test_enter_tilde_dot_leaves(keys: list[bytes], out: bytes, left: bool) -> None:
    escape = Escape()
    found = [escape.feed(some) for some in keys]
    assert b"".join(some for some, _ in found) == out
    assert found[-1][1] is left


@pytest.mark.service
def test_a_shell_needs_a_terminal() -> None:
    answer = subprocess.run(
        [*CI, "shell", "o/n#7"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (
        2,
        "ci: a shell needs a terminal: run `ci shell` in one\n",
    )
