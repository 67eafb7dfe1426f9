"""Boxes: what a step may do with its directory, and the shell program that uses it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.cache import shim
from agents.cache.box import FolderBox, make_folder
from tests.services import wait_for

ASK = "cwd /src\nenv HOME=/home/me\narg store\narg a key\nend\n"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[FolderBox]:
    make_folder(tmp_path / "box")
    found = FolderBox(tmp_path / "box")
    yield found
    found.close()


def ask(tmp_path: Path, text: str = ASK, name: str = "1.0.ask") -> Path:
    file = tmp_path / "box" / name
    file.write_text(text)
    return file


def taken(box: FolderBox) -> list[tuple[str, shim.Request]]:
    """What polling gives within a while."""
    found: list[tuple[str, shim.Request]] = []

    def poll() -> bool:
        found.extend(box.poll())
        return bool(found)

    wait_for("a request", poll)
    return found


def test_a_request_is_taken_once(box: FolderBox, tmp_path: Path) -> None:
    file = ask(tmp_path)
    expected = shim.Request("/src", {"HOME": "/home/me"}, ("store", "a key"))
    assert taken(box) == [("1.0", expected)]
    assert file.read_text() == ""  # it may have had keys
    file.write_text(ASK)
    ask(tmp_path, name="2.0.ask")
    assert [id_ for id_, _ in taken(box)] == ["2.0"]


def test_a_request_is_not_taken_before_its_end(box: FolderBox, tmp_path: Path) -> None:
    file = ask(tmp_path, ASK.removesuffix("end\n"))
    assert box.poll() == []
    with file.open("a") as stream:
        stream.write("end\n")
    assert len(taken(box)) == 1


def test_links_and_pipes_are_not_followed(box: FolderBox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(ASK)
    (tmp_path / "box" / "1.0.ask").symlink_to(secret)
    os.mkfifo(tmp_path / "box" / "2.0.ask")
    (tmp_path / "box" / "3.0.ask").mkdir()
    assert box.poll() == []
    assert secret.read_text() == ASK


def test_answers_do_not_go_where_links_point(box: FolderBox, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("1.0.answer", "1.0.answer.new", "beat", "beat.new"):
        (tmp_path / "box" / name).symlink_to(victim)
    box.answer("1.0", "0\n")
    box.beat(1)
    assert victim.read_text() == "precious"
    assert (tmp_path / "box" / "1.0.answer").read_text() == "0\n"
    assert (tmp_path / "box" / "beat").read_text() == "1\n"


def test_a_box_that_is_full_of_nonsense_is_no_harm(box: FolderBox, tmp_path: Path) -> None:
    (tmp_path / "box" / "1.0.ask").write_bytes(b"\xff\x00" * 1000)
    (tmp_path / "box" / "x.ask").write_text(ASK)
    (tmp_path / "box" / "beat.new").mkdir()
    assert box.poll() == []
    box.beat(1)


# --- the program ---


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    shim.install(tmp_path / "bin", str(tmp_path / "box"), patience_s=0.5)
    return tmp_path / "bin"


def start(tools: Path, *words: str, name: str = "cache") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(tools / name), *words],
        env={"PATH": f"{os.environ['PATH']}:{tools}", "HOME": "/home/it's me"},
        cwd=tools,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_program_asks_and_shows_the_answer(box: FolderBox, tools: Path) -> None:
    with start(tools, "store", "it's $HOME", "-a  b\\n") as program:
        ((id_, request),) = taken(box)
        assert request.words == ("store", "it's $HOME", "-a  b\\n")
        assert (request.cwd, request.given["HOME"]) == (str(tools), "/home/it's me")
        box.answer(id_, shim.answer(3, ["  one\\n %s", "two\nthree"], ["oops"], []))
        out, err = program.communicate(timeout=60)
    assert (program.returncode, out, err) == (3, "  one\\n %s\ntwo\nthree\n", "oops\n")


def test_checksum_is_a_command_of_its_own(box: FolderBox, tools: Path) -> None:
    with start(tools, "a file", name="checksum") as program:
        ((id_, request),) = taken(box)
        assert request.words == ("checksum", "a file")
        box.answer(id_, shim.answer(0, ["abc"], [], []))
        assert program.communicate(timeout=60)[0] == "abc\n"


@pytest.mark.parametrize(("command", "code"), [("store", 1), ("has_key", 2)])
def test_the_program_gives_up_when_nobody_counts(
    box: FolderBox, tools: Path, command: str, code: int
) -> None:
    with start(tools, command, "k") as program:
        _, err = program.communicate(timeout=60)
    assert (program.returncode, err) == (code, "cache: the agent is gone\n")


def test_the_program_waits_while_somebody_counts(
    box: FolderBox, tools: Path, tmp_path: Path
) -> None:
    # in the place of `sleep`: counts up, and answers long after the patience would be over
    sleep = tools / "sleep"
    sleep.write_text(
        "#!/bin/sh\n"
        f"cd {tmp_path / 'box'}\n"
        "read -r count 2>/dev/null < beat || count=0\n"
        "echo $((count + 1)) > beat\n"
        "[ $count -lt 40 ] || for ask in *.ask; do\n"
        '  echo 0 > "${ask%.ask}.answer"; : > "${ask%.ask}.done"\n'
        "done\n"
    )
    sleep.chmod(0o755)
    environ = {"PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run([str(tools / "cache"), "usage"], env=environ, timeout=60, check=False)
    assert done.returncode == 0


def test_several_lines_in_an_argument_are_refused(box: FolderBox, tools: Path) -> None:
    with start(tools, "store", "a\nend\n", "x") as program:
        _, err = program.communicate(timeout=60)
    assert (program.returncode, err) == (1, "cache: an argument has several lines\n")
