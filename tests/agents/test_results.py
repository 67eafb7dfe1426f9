"""Reports are found, read with care, and reach the server before the stage is over."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from agents import results
from agents.agent import Agent
from agents.drivers.scripted import ScriptedDriver
from agents.results import TooMuch, clean, gather, in_tar, on_disk, pack, prefixes
from builds.reports import unpack
from pipeline import states
from tests.agents.conftest import stage, step
from tests.agents.double import Double
from tests.agents.test_agent import run


def tree(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a.xml", ["a.xml"]),
        ("./a.xml", ["a.xml"]),
        ("*.xml", ["a.xml"]),
        ("**/*.xml", ["a.xml", "t/b.xml", "t/u/c.xml"]),
        ("t/*.xml", ["t/b.xml"]),
        ("t/**", ["t/b.xml", "t/d.txt", "t/u/c.xml"]),
        ("t/{b,d}.*", ["t/b.xml", "t/d.txt"]),
        ("none/*.xml", []),
        ("../*", []),
        ("/etc/*", []),
    ],
)
def test_patterns_find_files_on_disk_and_in_archives(
    pattern: str, found: list[str], tmp_path: Path
) -> None:
    tree(tmp_path, "a.xml", "t/b.xml", "t/u/c.xml", "t/d.txt", ".git/x.xml")
    patterns = clean([pattern])

    assert sorted(name for name, _ in on_disk(tmp_path, patterns)) == found

    archived = []
    for start in prefixes(patterns):
        if (tmp_path / start).exists() and ".git" not in start:
            space = io.BytesIO()
            with tarfile.open(fileobj=space, mode="w") as tar:
                tar.add(tmp_path / start, arcname=Path(start).name or "src")
            archived += [name for name, _ in in_tar([space.getvalue()], start, patterns)]
    assert sorted(set(archived) - {".git/x.xml"}) == found


def test_prefixes_are_read_once() -> None:
    assert prefixes(["a/b/*.xml", "a/b/c/*.xml", "d.xml"]) == ("a/b", "d.xml")
    assert prefixes(["a/*", "**/x"]) == ("",)


def test_nothing_but_plain_files_of_the_checkout_is_read(tmp_path: Path) -> None:
    root = tmp_path / "src"
    tree(root, "t/real.xml")
    tree(tmp_path, "secret.xml", "outside/secret.xml")
    (root / "t" / "link.xml").symlink_to(tmp_path / "secret.xml")
    (root / "t" / "folder").symlink_to(tmp_path / "outside")
    os.mkfifo(root / "t" / "pipe.xml")

    for pattern in ("t/**", "t/folder/*.xml", "t/link.xml"):
        names = [name for name, _ in on_disk(root, clean([pattern]))]
        assert names == (["t/real.xml"] if pattern == "t/**" else [])


def test_the_server_reads_what_is_packed() -> None:
    files = {"a.xml": b"one", "b\udcff.xml": b""}

    assert list(unpack(pack(files))) == [("a.xml", b"one"), ("b?.xml", b"")]


def test_reports_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_ROOM_BYTES", 10)
    monkeypatch.setattr(results, "MAX_FILES", 2)

    assert gather([("a", b"12345")]) == {"a": b"12345"}
    with pytest.raises(TooMuch, match="MiB"):
        gather([("a", b"12345"), ("b", b"123456")])
    with pytest.raises(TooMuch, match="files"):
        gather([("a", b""), ("b", b""), ("c", b"")])


# --- in a stage ---

Make = Callable[..., Agent]


@pytest.mark.parametrize("fault", ["", "refuse", "drop", "lose_answer"])
def test_reports_arrive_before_the_stage_is_over(
    make_agent: Make, double: Double, scripted: ScriptedDriver, fault: str
) -> None:
    if fault:
        double.fault("results", fault)
    first = step("test", "write a.xml <testsuite/>", "exit 1", reports=("*.xml",))

    lease = run(make_agent(scripted), double, stage(first))

    assert lease.last.status == states.FAILURE
    assert list(unpack(lease.results[1])) == [("a.xml", b"<testsuite/>")]
    calls = [call for call in double.calls if call != "presence"]
    assert calls.index("results") < len(calls) - 1 - calls[::-1].index("report")


def test_a_secret_does_not_stand_in_reports(
    make_agent: Make, double: Double, scripted: ScriptedDriver
) -> None:
    one = step("test", "write a.xml <a>hunter2</a>", reports=("*.xml",), secrets={"A": "b"})

    lease = run(make_agent(scripted), double, stage(one, secrets={"b": "hunter2"}))

    assert list(unpack(lease.results[1])) == [("a.xml", b"<a>******</a>")]


def test_a_step_without_reports_says_so(
    make_agent: Make, double: Double, scripted: ScriptedDriver
) -> None:
    lease = run(make_agent(scripted), double, stage(step("test", reports=("*.xml",))))

    assert lease.last.status == states.SUCCESS
    assert lease.text(1) == "[ci] reports: there is no file *.xml\n"
    assert lease.results == {}


def test_reports_that_the_server_refuses_do_not_hold_up_the_stage(
    make_agent: Make, double: Double, scripted: ScriptedDriver
) -> None:
    double.refuse_results = True
    first = step("test", "write a.xml x", reports=("a.xml",))

    lease = run(make_agent(scripted), double, stage(first))

    assert lease.last.status == states.SUCCESS
    assert lease.results == {}


def test_exec_steps_have_reports(make_agent: Make, double: Double) -> None:
    made = step("test", "mkdir out", "echo '<testsuite/>' > out/r.xml", reports=("out/*.xml",))

    lease = run(make_agent(), double, stage(made))

    assert list(unpack(lease.results[1])) == [("out/r.xml", b"<testsuite/>\n")]
