from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agents import check as checks
from agents import command, option_text
from agents.command import main
from agents.state import Identity, State
from tests.agents.double import JOIN_TOKEN, Double


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        name for name in os.environ if name.startswith(("DRONE_", "DOCKER_", "SEMAPHORE_"))
    ]:
        monkeypatch.delenv(name)


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command became: program, words, environment."""
    calls: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    return calls


@pytest.mark.parametrize("word", ["start", "agent"])
def test_start_becomes_the_celery_worker(
    word: str, became: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRONE_RUNNER_CAPACITY", "7")

    main([word, "--server", "http://ci", "--token", "abc", "--labels", "a=b"])

    [(program, words, environ)] = became
    assert program == sys.executable
    assert words[1:] == ["-m", "celery", "-A", "agents", "worker"]
    assert environ["CISERVER_AGENT_SERVER"] == "http://ci"
    assert environ["CISERVER_AGENT_TOKEN"] == "abc"
    assert environ["CISERVER_AGENT_LABELS"] == "a=b"
    assert environ["DRONE_RUNNER_CAPACITY"] == "7"
    assert "CISERVER_AGENT_CONCURRENCY" not in environ


def test_run_takes_one_stage(became: list[Any]) -> None:
    main(["run", "--server", "http://ci", "--token", "abc"])

    assert became[0][2]["CISERVER_AGENT_DISCONNECT_AFTER_JOB"] == "true"


@pytest.mark.parametrize("words", [["start"], ["run"], ["check"], ["check", "--offline"]])
def test_a_wrong_configuration_is_one_line_and_exit_code_2(
    words: list[str], became: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--server", "http://ci", "--token", "x", "--backoff", "soon"]) == 2

    error = capsys.readouterr().err
    assert error.startswith("ci-agent: backoff (flag): expected a duration")
    assert error.count("\n") == 1
    assert became == []


def test_an_unknown_command_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve"]) == 2
    assert capsys.readouterr().err == "ci-agent: there is no command serve; see ci-agent --help\n"


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"], ["start", "--help"]])
def test_help_names_commands_and_options(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0

    out = capsys.readouterr().out
    assert "Usage: ci-agent COMMAND" in out
    assert "--disconnect-after-job" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"ci-agent {command.version()}\n"


def test_options_is_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["options"]) == 0
    assert capsys.readouterr().out == option_text.page()


def checked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["check", "--json", *words])
    data = json.loads(capsys.readouterr().out)
    return code, {one["name"]: (one["status"], one["text"]) for one in data["checks"]}


def test_check_offline_looks_at_the_configuration_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, found = checked(capsys, "--offline", "--server", "http://127.0.0.1:1", "--token", "x")

    assert code == 0
    assert list(found) == ["configuration"]


def test_check_asks_the_server(
    capsys: pytest.CaptureFixture[str], double: Double, tmp_path: Path
) -> None:
    words = ["--server", double.url, "--token", JOIN_TOKEN, "--isolation", "shell"]

    code, found = checked(capsys, *words, "--state-dir", str(tmp_path), "--disk-free-min", "0")

    assert code == 1
    states = {name: status for name, (status, _) in found.items()}
    assert states == {
        "configuration": "ok",
        "server": "ok",
        "token": "ok",
        "clock": "ok",
        "redis": "failed",
        "docker": "skipped",
        "disk": "ok",
    }
    assert "127.0.0.1:1" in found["redis"][1]


def test_check_names_a_redis_behind_a_socket(
    capsys: pytest.CaptureFixture[str], double: Double, tmp_path: Path
) -> None:
    url = "redis+socket://me:secret@/nowhere.sock"
    words = ["--server", double.url, "--token", JOIN_TOKEN, "--isolation", "shell"]
    words += ["--redis-url", url, "--state-dir", str(tmp_path), "--disk-free-min", "0"]

    _, found = checked(capsys, *words)

    assert found["redis"][0] == "failed"
    assert "secret" not in found["redis"][1]


def test_check_names_a_server_that_is_away(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, found = checked(
        capsys, "--server", "http://127.0.0.1:1", "--token", "x", "--state-dir", str(tmp_path),
        "--isolation", "docker", "--docker-host", f"unix://{tmp_path}/no.sock",
        "--disk-free-min", "1000000g",
    )  # fmt: skip

    assert code == 1
    assert found["server"] == (
        "failed",
        "http://127.0.0.1:1 cannot be reached: [Errno 111] Connection refused",
    )
    assert found["token"][0] == found["clock"][0] == found["redis"][0] == "skipped"
    assert found["docker"][0] == "failed"
    assert "there is no such socket" in found["docker"][1]
    assert found["disk"][0] == "failed"


@pytest.mark.parametrize(
    ("more", "status"), [((), "warning"), (("--fail-on-missing-files",), "failed")]
)
def test_check_misses_hooks_and_files(
    capsys: pytest.CaptureFixture[str],
    double: Double,
    tmp_path: Path,
    more: tuple[str, ...],
    status: str,
) -> None:
    code, found = checked(
        capsys, "--server", double.url, "--token", JOIN_TOKEN, "--isolation", "shell",
        "--state-dir", str(tmp_path), "--post-job-hook-path", "/no/hook", "--files", "/no/file:/f",
        *more,
    )  # fmt: skip

    assert code == 1
    assert found["hooks"] == ("failed", "/no/hook: not there")
    assert found["files"] == (status, "/no/file: not there")


def test_check_shows_a_wrong_token(
    capsys: pytest.CaptureFixture[str], double: Double, tmp_path: Path
) -> None:
    code, found = checked(
        capsys, "--server", double.url, "--token", "wrong", "--isolation", "shell",
        "--state-dir", str(tmp_path),
    )  # fmt: skip

    assert code == 1
    assert found["server"][0] == "ok"
    assert found["token"] == ("failed", "unknown token")


@pytest.mark.parametrize("code", ["agent:name", "agent:disabled"])
def test_check_tells_a_name_from_a_token(
    capsys: pytest.CaptureFixture[str], double: Double, tmp_path: Path, code: str
) -> None:
    double.refuse_join = (409, "choose another name")
    double.refusal_code = code
    _, found = checked(
        capsys, "--server", double.url, "--token", JOIN_TOKEN, "--isolation", "shell",
        "--state-dir", str(tmp_path),
    )  # fmt: skip

    assert found["token"][0] == "ok"
    assert found["name"] == ("failed", "choose another name")


def test_check_asks_as_the_agent_of_the_state_directory(
    capsys: pytest.CaptureFixture[str], double: Double, tmp_path: Path
) -> None:
    state = State(tmp_path)  # the agent runs meanwhile
    state.save_identity(Identity(double.url, "agent-of-tests", 7, "agent-token"))
    checked(
        capsys, "--server", double.url, "--token", JOIN_TOKEN, "--isolation", "shell",
        "--state-dir", str(tmp_path),
    )  # fmt: skip
    state.close()

    (join,) = double.joins
    assert (join.name, join.previous, join.previous_token) == ("agent-of-tests", 7, "agent-token")


def test_check_warns_of_a_clock_that_is_off(
    capsys: pytest.CaptureFixture[str],
    double: Double,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "time", SimpleNamespace(time=lambda: time.time() + 3600))

    _, found = checked(
        capsys, "--server", double.url, "--token", JOIN_TOKEN, "--isolation", "shell",
        "--state-dir", str(tmp_path),
    )  # fmt: skip

    assert found["clock"][0] == "warning"
    assert "this host's is +36" in found["clock"][1]


def test_the_table_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--offline", "--server", "http://ci", "--token", "x"]) == 0
    assert capsys.readouterr().out.startswith("configuration  ok       2 options given")
