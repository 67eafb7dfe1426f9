"""`ci compile`, `ci sign`, `ci encrypt`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from builds.encryption import decrypt
from ciserver.cli import app
from ciserver.cli.terminal import Refused
from pipeline.signature import verify

KEY = "0123456789abcdef0123456789abcdef"
FILE = """kind: pipeline
name: one
steps:
- {name: a, image: "i:${TAG:-none}", environment: {X: {from_secret: s}}, commands: ["echo ${WHO}"]}
---
kind: pipeline
name: two
trigger: {event: tag}
matrix: {GO: ["1", "2"]}
steps: [{name: b, image: "go:${GO}"}]
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.chdir(tmp_path)

    def put(text: str = FILE, name: str = ".drone.yml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return put


def ci(*words: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, list(words), input=stdin)


def spec(*words: str) -> dict[str, Any]:
    done = ci("compile", *words, "--json")
    assert done.exit_code == 0, done.output
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def test_compile_prints_the_only_stage(write: Callable[..., Path]) -> None:
    write()
    found = spec("--param", "WHO=me", "--env", "TAG=3", "--repo", "a/b", "--commit", "b1")
    assert (found["repo"], found["name"], found["event"]) == ("a/b", "one", "push")
    assert found["clone"]["sha"] == "b1"
    assert found["steps"][1]["image"] == "i:3"
    assert found["steps"][1]["commands"] == ["echo me"]
    assert found["steps"][1]["secrets"] == {"X": "s"}


def test_compile_prints_a_point_of_a_matrix(write: Callable[..., Path]) -> None:
    write()
    found = spec("--event", "tag", "--pipeline", "two (GO=2)")
    assert found["steps"][1]["image"] == "go:2"
    assert found["environment"]["DRONE_TAG"] == "v1.0.0"


def test_compile_for_people(write: Callable[..., Path]) -> None:
    write()
    done = ci("compile")
    assert done.stdout.splitlines() == [
        "one (docker, linux/amd64), at most 3600 s",
        "  1 clone (clone, always)",
        "  2 a [i:none] (step, on-success) after clone",
        "  secrets: s",
    ]


def test_compile_looks_at_changed_files(write: Callable[..., Path]) -> None:
    write(FILE.replace('image: "i:', "when: {paths: ['docs/**']}, image: \"i:"))
    for path, names in (("docs/a/b", ["clone", "a"]), ("src/a", ["clone"])):
        found = spec("--path", path)["steps"]
        assert [step["name"] for step in found] == names


def test_compile_evaluates_programs(write: Callable[..., Path]) -> None:
    write("def main(ctx): return {'kind': 'pipeline', 'name': ctx.build.event}", ".drone.star")
    assert spec(".drone.star", "--event", "custom")["name"] == "custom"


def test_compile_converts_old_files(write: Callable[..., Path]) -> None:
    write("pipeline:\n  build:\n    image: golang\n    commands: [go build]\n")
    assert [step["name"] for step in spec()["steps"]] == ["clone", "build"]


def test_compile_shows_what_is_wrong(write: Callable[..., Path]) -> None:
    write("kind: pipeline\nname: a\nsteps:\n- {name: a, image: '${!x}'}\n")
    done = ci("compile")
    assert done.exit_code == 1
    assert done.stderr.startswith(".drone.yml:4:21: error: bad substitution")


@pytest.mark.parametrize("name", ["two", "three"])
def test_compile_refuses_what_is_not_chosen(name: str, write: Callable[..., Path]) -> None:
    write()
    done = ci("compile", "--pipeline", name)
    assert isinstance(done.exception, Refused)
    assert name in str(done.exception)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--event", "tag"), "name one of the pipelines with --pipeline: one, two (GO=1)"),
        (("--event", "cron", "--branch", "x"), "no pipeline is chosen: one: branch `x` does not"),
    ],
)
def test_compile_says_what_there_is(
    words: tuple[str, ...], sentence: str, write: Callable[..., Path]
) -> None:
    write(FILE.replace("name: one", "name: one\ntrigger: {branch: {exclude: [x]}}"))
    done = ci("compile", *words)
    assert isinstance(done.exception, Refused)
    assert sentence in str(done.exception)


def test_sign_prints_or_saves(write: Callable[..., Path]) -> None:
    path, key = write(), write(KEY + "\n", "key")
    done = ci("sign", "--key-file", str(key))
    assert len(done.stdout.strip()) == 64
    assert ci("sign", "--key-file", "-", "--save", stdin=KEY).exit_code == 0
    assert verify(path.read_text(), KEY)
    assert done.stdout.strip() in path.read_text()


def test_what_comes_from_stdin_is_printed_with_its_signature(write: Callable[..., Path]) -> None:
    path, key = write(), write(KEY, "key")
    text = path.read_text()
    done = ci("sign", "-", "--save", "--key-file", str(key), stdin=text)
    assert verify(done.stdout, KEY) and text.splitlines()[-1] in done.stdout
    assert not (path.parent / "-").exists()


def test_encrypt_prints_data_or_a_document(write: Callable[..., Path]) -> None:
    key, secret = write(KEY, "key"), write("from a file", "secret")
    assert decrypt(KEY, ci("encrypt", "hush", "--key-file", str(key)).stdout) == "hush"
    done = ci("encrypt", f"@{secret}", "--key-file", str(key), "--name", "token")
    assert done.stdout.startswith("---\nkind: secret\nname: token\ndata: ")
    assert decrypt(KEY, done.stdout.split("data: ")[1]) == "from a file"


@pytest.mark.parametrize(
    "words",
    [
        ("sign",),
        ("sign", "--repo", "a/b", "--key-file", "key"),
        ("sign", "--key-file", "none"),
        ("sign", "-", "--key-file", "-"),
        ("encrypt", "-", "--key-file", "-"),
        ("encrypt", "x", "--key-file", "short"),
        ("encrypt", "@none", "--key-file", "key"),
    ],
)
def test_what_cannot_be_done_is_refused(words: tuple[str, ...], write: Callable[..., Path]) -> None:
    write()
    write(KEY, "key")
    write("short", "short")
    assert isinstance(ci(*words).exception, Refused)
