"""`ci build`, `log`, `status` and `cancel` against a real server."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import services
from tests.e2e.house import CI, LIMIT_S, House, exec_pipeline, repository, save

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(400),
    pytest.mark.xdist_group("e2e-commands"),
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    built = House(tmp_path_factory.mktemp("house"))
    with built.up():
        yield built


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Where the test's repository goes; its name makes the slug."""
    return tmp_path / str(request.node.name).replace("_", "-")


def test_a_success_is_0_and_shows_the_log(house: House, folder: Path) -> None:
    repo = repository(folder, exec_pipeline("echo hello", "echo more"))

    answer = house.ci("build", str(repo))

    assert answer.returncode == 0, answer.stdout + answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[0].startswith(f"local/{folder.name}#1 http://127.0.0.1:{house.port}/local/")
    assert lines.index("main/step | hello") < lines.index("main/step | more")
    assert lines.index("main/step | more") < lines.index("main: success")
    assert lines[-1].startswith("build 1: success")
    assert "\x1b" not in answer.stdout


def test_a_failure_is_1(house: House, folder: Path) -> None:
    repo = repository(folder, exec_pipeline("exit 3"))

    answer = house.ci("build", str(repo))

    assert answer.returncode == 1
    assert answer.stdout.splitlines()[-1].startswith("build 1: failure")


@pytest.mark.parametrize(
    ("pipeline", "sentence"),
    [
        (None, "no such file"),
        ("", "the file is empty"),
        ("kind: pipeline\nsteps: [\n", ".drone.yml:3:1: "),
        ("kind: pipeline\ntype: exec\nname: x\nsteps: 7\n", ".drone.yml:4:8: "),
        ("kind: nonsense\nname: x\n", ".drone.yml:1:7: there is nothing to run: unknown kind"),
        (
            "kind: pipeline\ntype: exec\nstesp:\n- name: x\n",
            ".drone.yml:3:1: there is nothing to run: `stesp`: did you mean `steps`?",
        ),
        (
            "kind: pipeline\ntype: exec\nsteps:\n- name: x\n  comands: [ls]\n",
            ".drone.yml:4:3: step `x` runs nothing; line 5: `comands` in `steps[0]`",
        ),
    ],
    ids=["missing", "empty", "malformed", "nonsensical", "kind", "steps", "commands"],
)
def test_a_bad_pipeline_is_2_and_says_what_is_wrong(
    house: House, tmp_path: Path, pipeline: str | None, sentence: str
) -> None:
    repo = repository(tmp_path / "bad", pipeline)

    answer = house.ci("build", str(repo))

    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert ": error" in answer.stdout
    assert sentence in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["build", "/does/not/exist"], "/does/not/exist: there is no such folder"),
        (["build", "nobody/nothing"], "there is no repository nobody/nothing"),
        (["build", "https://127.0.0.1:1/a/b.git"], "cannot read https://127.0.0.1:1/a/b.git"),
        (["build", "--param", "novalue"], "--param novalue: expected KEY=VALUE"),
        (["build", "--param", "=noname"], "--param =noname: expected KEY=VALUE"),
        (["log", "nonsense"], "nonsense: expected a build such as octocat/hello#7"),
        (["log", "nobody/nothing#1"], "there is no repository nobody/nothing"),
        (["cancel", "nobody/nothing#1"], "there is no repository nobody/nothing"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_cannot_be_run_is_one_sentence_and_2(
    house: House, arguments: list[str], sentence: str
) -> None:
    answer = house.ci(*arguments)

    assert answer.returncode == 2
    assert sentence in answer.stderr
    assert answer.stderr.startswith("ci: ")
    assert answer.stderr.count("\n") == 1


def test_a_repository_without_commits_is_one_sentence_and_2(house: House, folder: Path) -> None:
    repo = repository(folder, None, commit=False)

    answer = house.ci("build", str(repo))

    assert answer.returncode == 2
    assert answer.stderr == f"ci: {repo} has no commits: there is nothing to build\n"


def test_a_folder_that_is_no_repository_is_one_sentence_and_2(house: House) -> None:
    with services.short_folder() as plain:
        answer = house.ci("build", str(plain))

    assert answer.returncode == 2
    assert answer.stderr == f"ci: {plain} is not a git repository\n"


def test_a_wrong_token_is_one_sentence_and_2(house: House) -> None:
    answer = house.ci("status", CISERVER_TOKEN="wrong")

    assert answer.returncode == 2
    assert answer.stderr == (
        f"ci: the server at http://127.0.0.1:{house.port} does not know this token\n"
    )


def test_no_server_is_one_sentence_and_2(house: House, tmp_path: Path) -> None:
    answer = house.ci("status", CISERVER_DATA_DIR=str(tmp_path / "nothing"))

    assert answer.returncode == 2
    assert answer.stderr.startswith(f"ci: no server has run on {tmp_path / 'nothing'}")


def test_a_server_elsewhere_is_reached_by_address_and_token(house: House, tmp_path: Path) -> None:
    token = (house.data_dir / "keys" / "user_token").read_text().strip()

    answer = house.ci(
        "status",
        CISERVER_DATA_DIR=str(tmp_path / "nothing"),
        DRONE_SERVER=f"http://127.0.0.1:{house.port}",
        DRONE_TOKEN=token,
    )

    assert answer.returncode == 0
    assert answer.stdout.startswith(f"server http://127.0.0.1:{house.port}\n")


def test_branch_commit_and_parameters_reach_the_steps(house: House, folder: Path) -> None:
    repo = repository(folder, exec_pipeline("echo $COLOUR on $DRONE_BRANCH at $DRONE_COMMIT"))
    git = ["git", "-C", str(repo)]
    first = subprocess.run(
        [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    subprocess.run([*git, "checkout", "--quiet", "-b", "other"], check=True)
    save(repo, exec_pipeline("echo newer"))

    answer = house.ci(
        "build", str(repo), "--branch", "main", "--commit", first, "--param", "COLOUR=blue"
    )

    assert f"main/step | blue on main at {first}\n" in answer.stdout


def test_json_is_the_build_and_nothing_else(house: House, folder: Path) -> None:
    repo = repository(folder, exec_pipeline("echo hello"))

    answer = house.ci("build", str(repo), "--json")

    build = json.loads(answer.stdout)
    assert answer.returncode == 0
    assert (build["number"], build["status"]) == (1, "success")
    assert [step["name"] for step in build["stages"][0]["steps"]] == ["clone", "step"]


def test_log_prints_all_or_one_stage_or_one_step(house: House, folder: Path) -> None:
    repo = repository(folder, exec_pipeline("echo hello"))
    house.ci("build", str(repo))
    build = f"local/{folder.name}#1"

    everything = house.ci("log", build).stdout
    step = house.ci("log", build, "main", "step")
    followed = house.ci("log", build, "1", "2", "--follow")
    missing = house.ci("log", build, "main", "absent")

    assert "main/clone | " in everything
    assert "main/step | hello\n" in everything
    assert step.stdout == "+ echo hello\nhello\n"
    assert followed.stdout == step.stdout
    assert house.ci("log", build, "--follow").stdout == f"{everything}main: success\n"
    assert missing.stderr == "ci: there is no step absent; there are clone, step\n"


def test_cancel_stops_a_build(house: House, folder: Path) -> None:
    mark = folder.parent / "started"
    repo = repository(folder, exec_pipeline(f"touch {mark}", "sleep 600"))
    house.ci("build", str(repo), "--no-follow")
    services.wait_for("the step", mark.exists)

    cancelled = house.ci("cancel", f"local/{folder.name}#1")

    assert cancelled.stdout == f"local/{folder.name}#1 is cancelled\n"
    build = json.loads(house.ci("status", f"local/{folder.name}", "--json").stdout)[0]
    assert build["status"] == "killed"
    again = house.ci("cancel", f"local/{folder.name}#1")
    assert again.stdout == f"local/{folder.name}#1 has ended already: killed\n"


def test_following_shows_lines_while_the_step_runs(house: House, folder: Path) -> None:
    gate = folder.parent / "gate"
    waiting = f"while [ ! -e {gate} ]; do sleep 0.05; done"
    repo = repository(folder, exec_pipeline("echo before", waiting, "echo after"))
    output = folder.parent / "output"
    with services.running([*CI, "build", str(repo)], output, house.environ) as process:
        services.wait_for("the first line", lambda: "| before\n" in output.read_text())
        assert "| after\n" not in output.read_text()
        gate.touch()
        assert process.wait(LIMIT_S) == 0

    assert "| after\n" in output.read_text()


def test_a_terminal_gets_colours_and_progress(house: House, folder: Path) -> None:
    repo = repository(folder, exec_pipeline("sleep 1"))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*CI, "build", str(repo)], env=house.environ, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    text = _read_all(ours)

    assert process.wait(LIMIT_S) == 0
    assert "\x1b[32msuccess\x1b[0m" in text
    assert "running main/step …" in text


def _read_all(descriptor: int) -> str:
    """What a terminal shows until its last writer closes it."""
    parts: list[bytes] = []
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while True:
            try:
                part = file.read(4096)
            except OSError:  # Linux says so when the other side is closed
                part = b""
            if not part:
                return b"".join(parts).decode()
            parts.append(part)


def test_status_lists_repositories_with_their_newest_build(house: House, folder: Path) -> None:
    repo = repository(folder, exec_pipeline("true"))
    house.ci("build", str(repo))

    answer = house.ci("status")

    row = next(line for line in answer.stdout.splitlines() if folder.name in line)
    assert row.split() == [f"local/{folder.name}#1", "success", "custom", "A", "change"]


def test_uncommitted_changes_are_pointed_out(house: House, folder: Path) -> None:
    repo = repository(folder, exec_pipeline("true"))
    (repo / ".drone.yml").write_text(exec_pipeline("false"))

    answer = house.ci("build", str(repo))

    assert answer.returncode == 0
    assert "changes that are not committed are not built\n" in answer.stdout
