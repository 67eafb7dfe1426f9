from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents.hooks import (
    HookError,
    Reason,
    check_files,
    environment,
    post_job,
    pre_job,
    read_env_file,
    shutdown,
)
from agents.option_table import Options


def options(**given: Any) -> Options:
    return Options(server="http://ci", token="x", **given)


@pytest.fixture
def script(tmp_path: Path) -> Any:
    def write(text: str) -> str:
        path = tmp_path / "hook"
        path.write_text(text)
        return str(path)

    return write


def test_it_gives_steps_proxies_then_variables_then_the_file(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("B=file\n")

    found = environment(
        options(http_proxy="http://p", env_vars={"A": "1=2", "B": "map"}, env_file=str(file))
    )

    assert found == {"http_proxy": "http://p", "HTTP_PROXY": "http://p", "A": "1=2", "B": "file"}


def test_it_says_when_the_variables_file_is_gone() -> None:
    with pytest.raises(HookError, match="env-file /no/such"):
        environment(options(env_file="/no/such"))


def test_it_reads_files_of_variables() -> None:
    text = "# comment\nA=1\nexport B='two words'\nC=\"x=y\"\nD=\nnot a line\n1=2\n"

    assert read_env_file(text) == {"A": "1", "B": "two words", "C": "x=y", "D": ""}


def test_no_hook_is_fine(tmp_path: Path) -> None:
    assert pre_job(options(), {}, tmp_path, print).exit_code == 0
    post_job(options(), {}, tmp_path, print, "success")
    shutdown(options(), Reason.IDLE)


def test_a_pre_job_hook_sees_the_stage_and_its_output_is_shown(tmp_path: Path, script: Any) -> None:
    out: list[bytes] = []
    path = script("echo build $DRONE_BUILD_NUMBER in $PWD; echo oops >&2")

    ran = pre_job(
        options(pre_job_hook_path=path), {"DRONE_BUILD_NUMBER": "7"}, tmp_path, out.append
    )

    assert ran.exit_code == 0
    assert b"".join(out) == f"build 7 in {tmp_path}\noops\n".encode()


def test_a_failing_pre_job_hook_is_said_or_fails_the_stage(tmp_path: Path, script: Any) -> None:
    out: list[bytes] = []
    path = script("exit 3")

    assert pre_job(options(pre_job_hook_path=path), {}, tmp_path, out.append).exit_code == 3
    assert b"ended with exit code 3; going on" in b"".join(out)

    strict = options(pre_job_hook_path=path, fail_on_pre_job_hook_error=True)
    with pytest.raises(HookError, match="ended with exit code 3"):
        pre_job(strict, {}, tmp_path, out.append)


def test_a_missing_pre_job_hook_is_a_failing_one(tmp_path: Path) -> None:
    strict = options(pre_job_hook_path="/no/such", fail_on_pre_job_hook_error=True)

    with pytest.raises(HookError):
        pre_job(strict, {}, tmp_path, print)


def test_a_sourced_hook_changes_variables_of_steps(tmp_path: Path, script: Any) -> None:
    path = script("export NEW='a b'\nexport A=changed\nlocal_only=1\necho hello\n")
    out: list[bytes] = []

    ran = pre_job(
        options(
            pre_job_hook_path=path,
            source_pre_job_hook=True,
            env_vars={"A": "old", "B": "same"},
        ),
        {},
        tmp_path,
        out.append,
    )

    assert ran.exports == {"NEW": "a b", "A": "changed"}
    assert out == [b"hello\n"]


def test_a_sourced_hook_may_fail(tmp_path: Path, script: Any) -> None:
    sourced = options(pre_job_hook_path=script("export A=1\nfalse\n"), source_pre_job_hook=True)

    ran = pre_job(sourced, {}, tmp_path, lambda _: None)

    assert (ran.exit_code, ran.exports) == (1, {"A": "1"})


def test_hooks_do_not_see_the_tokens_of_the_agent(
    tmp_path: Path, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CISERVER_AGENT_TOKEN", "hunter2")
    out: list[bytes] = []

    pre_job(options(pre_job_hook_path=script("env")), {}, tmp_path, out.append)

    assert b"hunter2" not in b"".join(out)


@pytest.mark.parametrize("sourced", [False, True])
@pytest.mark.parametrize("name", ["BASH_ENV", "PATH", "LD_PRELOAD", "HOME", "PS4"])
def test_a_pipelines_variables_do_not_steer_hooks(
    tmp_path: Path, script: Any, name: str, sourced: bool
) -> None:
    """Hooks run on the host with the agent's rights, whatever isolates the steps."""
    mark, evil = tmp_path / "mark", tmp_path / "evil"
    evil.mkdir()
    (evil / "ls").write_text(f"#!/bin/sh\necho > {mark}\n")
    (evil / "ls").chmod(0o755)
    value = f"$(touch {mark}){evil}" if name in ("BASH_ENV", "PS4") else str(evil)
    out: list[bytes] = []

    pre_job(
        options(pre_job_hook_path=script("set -x; ls"), source_pre_job_hook=sourced),
        {name: value},
        tmp_path,
        out.append,
    )

    assert not mark.exists()
    assert str(evil).encode() not in b"".join(out)


def test_what_a_hook_leaves_running_does_not_hold_the_stage(tmp_path: Path, script: Any) -> None:
    path = script("sleep 600 &\necho done\n")
    out: list[bytes] = []

    assert pre_job(options(pre_job_hook_path=path), {}, tmp_path, out.append).exit_code == 0
    assert out == [b"done\n"]


@pytest.mark.parametrize(
    ("status", "result"),
    [("success", "passed"), ("failure", "failed"), ("error", "failed"), ("killed", "stopped")],
)
def test_a_post_job_hook_is_told_the_result(
    tmp_path: Path, script: Any, status: str, result: str
) -> None:
    out: list[bytes] = []
    path = script("echo $SEMAPHORE_JOB_RESULT $CISERVER_STAGE_STATUS; exit 9")

    post_job(options(post_job_hook_path=path), {}, tmp_path, out.append, status)

    assert out[0] == f"{result} {status}\n".encode()
    assert b"which is ignored" in out[-1]


@pytest.mark.parametrize("reason", list(Reason))
def test_a_shutdown_hook_is_told_the_reason(tmp_path: Path, script: Any, reason: Reason) -> None:
    target = tmp_path / "reason"
    path = script(
        f"echo $SEMAPHORE_AGENT_SHUTDOWN_REASON $CISERVER_AGENT_SHUTDOWN_REASON > {target}"
    )

    shutdown(options(shutdown_hook_path=path), reason)

    assert target.read_text() == f"{reason} {reason}\n"


def test_missing_files_are_said_or_fail_the_stage(tmp_path: Path) -> None:
    out: list[bytes] = []
    files = (f"{tmp_path}:/there", "/no/such:/gone")

    check_files(options(files=files), out.append)
    assert out == [b"[ci] the file /no/such does not exist on this host; going on without it\n"]

    with pytest.raises(HookError, match="fail-on-missing-files: /no/such does not exist"):
        check_files(options(files=files, fail_on_missing_files=True), out.append)
