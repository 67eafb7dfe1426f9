"""`artifact` in steps: what it understands, and files on their way to the server and back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agents import artifacts
from agents.agent import Agent
from agents.artifacts import Push, WrongUsage, parse_push
from pipeline import states
from pipeline.wire import MAX_PART_BYTES
from tests.agents.conftest import stage, step
from tests.agents.double import Double, Lease
from tests.agents.test_agent import run

Make = Callable[..., Agent]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("dist", Push("dist", "dist")),
        ("./dist/", Push("./dist/", "dist")),
        ("dist/app --name app", Push("dist/app", "app")),
        ("--name=a/b/ dist", Push("dist", "a/b")),
        ("-n x -e 12h dist", Push("dist", "x", 43200)),
        ("dist --expire 7d", Push("dist", "dist", 604800)),
        ("/tmp/report.html", Push("/tmp/report.html", "report.html")),
        ("../out", Push("../out", "out")),
        (". --name all", Push(".", "all")),
    ],
)
def test_it_understands(words: str, wanted: Push) -> None:
    assert parse_push(words.split()) == wanted


@pytest.mark.parametrize(
    "words", ["", "a b", "a --name", "a --force", "a --expire soon", "a -e 0d", ".", "/", ".."]
)
def test_it_refuses(words: str) -> None:
    with pytest.raises(WrongUsage):
        parse_push(words.split())


def steps(agent: Agent, double: Double, *commands: str) -> Lease:
    return run(agent, double, stage(step("one", *commands)))


def test_files_go_from_one_stage_to_another(make_agent: Make, double: Double) -> None:
    agent = make_agent()
    pushed = steps(
        agent,
        double,
        "mkdir -p dist/bin && echo hello > dist/a.txt && echo run > 'dist/bin/my app'",
        "chmod 755 'dist/bin/my app'",
        "artifact push dist --expire 7d",
    )
    pulled = steps(
        agent,
        double,
        "artifact pull dist",
        "cat dist/a.txt && test -x 'dist/bin/my app'",
        "artifact pull dist/bin out/tools && cat 'out/tools/my app'",
        "artifact pull dist/a.txt b.txt && cat b.txt",
        "artifact list",
    )

    assert pushed.last.status == states.SUCCESS, pushed.text(1)
    assert pushed.text(1).endswith("Pushed dist: 2 files, 10 B.\n")
    assert pulled.last.status == states.SUCCESS, pulled.text(1)
    assert "Pulled dist/bin to out/tools: 1 file, 4 B.\n" in pulled.text(1)
    assert pulled.text(1).endswith("dist/a.txt  6 B\ndist/bin/my app  4 B\n")


@pytest.mark.parametrize("fault", ["refuse", "drop", "lose_answer"])
def test_large_files_go_in_parts_whatever_happens(
    make_agent: Make, double: Double, fault: str
) -> None:
    size = 2 * MAX_PART_BYTES + 7
    double.fault("artifact", fault, 2)

    lease = steps(
        make_agent(),
        double,
        f"head -c {size} /dev/urandom > big && cp big copy",
        "artifact push big && rm big && artifact pull big && cmp big copy",
    )

    assert lease.last.status == states.SUCCESS, lease.text(1)
    assert len(double.artifacts["big"][0]) == size


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("artifact push nowhere", 1, "artifact: there is no nowhere"),
        ("artifact pull nothing", 1, "artifact: there is no artifact nothing in this build"),
        ("mkdir empty && artifact push empty", 1, "artifact: there are no files in empty"),
        ("artifact", 2, "artifact: which command?"),
        ("artifact pull", 2, "Usage: artifact COMMAND"),
    ],
)
def test_what_fails_says_why(
    make_agent: Make, double: Double, command: str, code: int, said: str
) -> None:
    lease = steps(make_agent(), double, command)

    assert lease.last.exit_code == code
    assert said in lease.text(1)


def test_links_are_left_out(make_agent: Make, double: Double) -> None:
    lease = steps(
        make_agent(),
        double,
        "mkdir d && echo x > d/file && ln -s /etc/passwd d/link",
        "artifact push d",
    )

    assert lease.last.status == states.SUCCESS, lease.text(1)
    assert "Left out d/link" in lease.text(1)
    assert list(double.artifacts) == ["d/file"]


def test_a_server_that_stays_away_fails_the_command(
    make_agent: Make, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "AWAY_S", 0.0)
    double.fault("artifact", "refuse")

    lease = steps(make_agent(), double, "artifact list")

    assert lease.last.exit_code == 1
    assert "artifact: the server cannot be reached: try again" in lease.text(1)


def test_a_changed_artifact_is_noticed(
    make_agent: Make, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.artifacts["a"] = (b"good", 0o644)
    monkeypatch.setattr(double, "part", lambda path, offset: b"evil"[offset:])

    lease = steps(make_agent(), double, "artifact pull a")

    assert lease.last.exit_code == 1
    assert "a changed while it was pulled" in lease.text(1)
