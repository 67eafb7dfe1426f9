from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from agents.flags import add_flags, take


def run(*words: str) -> tuple[int, str, dict[str, Any]]:
    """Exit code, complaint and flags of a command as Celery makes it."""
    found: dict[str, Any] = {}
    options: list[click.Parameter] = [click.Option(["-c", "--concurrency"], type=int)]
    add_flags(options.append)

    def callback(**kwargs: Any) -> None:
        found.update(take(kwargs))

    command = click.Command(
        "worker",
        params=options,
        callback=callback,
        context_settings={"allow_extra_args": True},
    )
    result = CliRunner().invoke(command, list(words))
    return result.exit_code, result.stderr, found


def test_flags_are_taken() -> None:
    words = ("--server", "ci.example.com", "-c", "3", "--labels", "a=b", "--debug")
    flags = {"server": "ci.example.com", "concurrency": "3", "labels": ["a=b"], "debug": "true"}
    assert run(*words) == (0, "", flags)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--no-such-flag"], "--no-such-flag (flag): there is no such option"),
        (["--sever=x"], "--sever (flag): there is no such option; did you mean server?"),
        (["--debug", "--concurency", "2"], "--concurency (flag): there is no such option; "
         "did you mean concurrency?"),
        (["-Z"], "-Z (flag): there is no such option"),
        (["--kubernetes-x", "1"], "--kubernetes-x (flag): this agent does not run stages in "
         "Kubernetes pods; choose isolation docker or shell instead"),
    ],
)  # fmt: skip
def test_a_flag_that_nobody_knows_is_refused_in_one_line(words: list[str], sentence: str) -> None:
    assert run(*words) == (2, f"agent: {sentence}\n", {})
