"""What the owner of a build host gives to stages and forbids them, from the server's end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.house import House, repository
from tests.services import short_folder, wait_for

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("agent-options-house"),
]

PIPELINE = """\
kind: pipeline
type: exec
name: main
steps:
- name: step
  environment:
    OWN: {{from_secret: own_secret}}
  commands:
{commands}
"""


def pipeline(*commands: str) -> str:
    return PIPELINE.format(commands="".join(f"  - {json.dumps(one)}\n" for one in commands))


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with short_folder() as folder:
        (folder / "env").write_text("FROM_FILE=file\nBOTH=file\n")
        (folder / "pre.sh").write_text("echo before\nexport SOURCED=by-hook\n")
        (folder / "post.sh").write_text(
            f'echo "$SEMAPHORE_JOB_RESULT $CISERVER_STAGE_STATUS" >> {folder}/post\n'
        )
        options = {
            "NAME": "agent-of-house",
            "ENV_VARS": "A=1=2,BOTH=variable",
            "ENV_FILE": f"{folder}/env",
            "SECRETS": "own_secret=hunter2",
            "HTTP_PROXY": "http://proxy.invalid:3128",
            "NO_PROXY": "127.0.0.1",
            "PRE_JOB_HOOK_PATH": f"{folder}/pre.sh",
            "SOURCE_PRE_JOB_HOOK": "true",
            "POST_JOB_HOOK_PATH": f"{folder}/post.sh",
            "UPLOAD_JOB_LOGS": "always",
            "LIMIT_REPOS": "local/good*",
        }
        extra = {f"CISERVER_AGENT_{name}": text for name, text in options.items()}
        house = House(folder, extra=extra)
        with house.up():
            yield house


def build(house: House, name: str, text: str) -> tuple[int, str]:
    """Exit code and output of a build of this pipeline."""
    done = house.ci("build", str(repository(house.folder / name, text)))
    return done.returncode, done.stdout + done.stderr


def test_steps_are_given_variables_secrets_and_proxies(house: House) -> None:
    code, output = build(
        house,
        "good-environment",
        pipeline(
            "echo A=$A both=$BOTH file=$FROM_FILE sourced=$SOURCED",
            "echo early ${A}",
            "echo proxy $http_proxy $HTTP_PROXY $no_proxy",
            "echo secret $OWN $(printf %s $OWN | wc -c)",
        ),
    )
    assert code == 0, output
    assert "A=1=2 both=file file=file sourced=by-hook\n" in output
    assert "early 1=2\n" in output
    assert "proxy http://proxy.invalid:3128 http://proxy.invalid:3128 127.0.0.1\n" in output
    assert "secret ****** 7\n" in output
    assert "hunter2" not in output
    assert "| before\n" in output
    wait_for("the post-job hook", (house.folder / "post").exists)
    assert (house.folder / "post").read_text().endswith("passed success\n")


def test_the_whole_log_is_an_artifact(house: House) -> None:
    code, output = build(house, "good-log", pipeline("echo hello $OWN"))
    assert code == 0, output
    path = "local/good-log/builds/1/artifacts"
    (found,) = json.loads(get(house, path))
    assert found["path"] == "agent/1/job_logs.txt"
    whole = get(house, f"{path}/agent/1/job_logs.txt")
    assert "=== step ===\n" in whole
    assert "hello ******\n" in whole


def test_a_refused_stage_names_rule_and_agent(house: House) -> None:
    code, output = build(house, "bad", pipeline("true"))
    assert code != 0
    refusal = "agent agent-of-house refuses this stage by its rule limit-repos"
    assert f"{refusal}: it does not allow the repository local/bad" in output


def test_an_agent_may_be_for_one_stage(house: House) -> None:
    """`job-id`: started for one of two waiting stages, it runs that and leaves."""
    house.ci("agents", "agent-of-house", "drain")
    ids: list[int] = []
    for name in ("good-first", "good-second"):
        folder = repository(house.folder / name, pipeline("true"))
        assert house.ci("build", "--no-follow", str(folder)).returncode == 0
        ids.append(stages(house, name)[0]["id"])
    token = (house.data_dir / "keys" / "join_token").read_text().strip()
    one = house.run(
        [sys.executable, "-m", "agents.command", "run"],
        CISERVER_AGENT_NAME="agent-for-one",
        CISERVER_AGENT_JOB_ID=str(ids[1]),
        CISERVER_AGENT_STATE_DIR=str(house.folder / "one"),
        CISERVER_AGENT_SERVER=f"http://{house.environ['CISERVER_BIND']}",
        CISERVER_AGENT_TOKEN=token,
        CISERVER_AGENT_EXEC_UNTRUSTED="true",
    )
    assert one.returncode == 0, one.stderr
    assert [stages(house, name)[0]["status"] for name in ("good-first", "good-second")] == [
        "pending",
        "success",
    ]
    house.ci("agents", "agent-of-house", "undrain")


def stages(house: House, name: str) -> list[dict[str, Any]]:
    return list(json.loads(get(house, f"local/{name}/builds/1"))["stages"])


def get(house: House, path: str) -> str:
    """What the API says of a repository."""
    token = (house.data_dir / "keys" / "user_token").read_text().strip()
    address = f"http://{house.environ['CISERVER_BIND']}/api/repos/{path}"
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.get(address, headers=headers, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.text
