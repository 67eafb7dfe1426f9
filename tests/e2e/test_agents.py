"""What an administrator tells an agent that runs, against a real `ci up`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import House, exec_pipeline, repository
from tests.services import short_folder, wait_for

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("agents-house"),
]
LIMIT_S = 120.0


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with short_folder() as folder:
        house = House(folder, extra={"CISERVER_AGENT_NAME": "agent-of-house"})
        with house.up():
            wait_for("the agent", lambda: agents(house), LIMIT_S)
            yield house


def agents(house: House) -> list[dict[str, Any]]:
    listed = house.ci("agents", "--json")
    assert listed.returncode == 0, listed.stderr
    return list(json.loads(listed.stdout))


def tell(house: House, *words: str) -> str:
    told = house.ci("agents", "agent-of-house", *words)
    assert told.returncode == 0, told.stderr
    return told.stdout


def status(house: House) -> str:
    return str(agents(house)[0]["status"])


def builds(house: House, slug: str) -> list[str]:
    listed = house.ci("status", slug, "--json")
    assert listed.returncode == 0, listed.stderr
    return [str(build["status"]) for build in json.loads(listed.stdout)]


def start(house: House, name: str, pipeline: str) -> str:
    """Start a build and do not wait for it; the repository's name."""
    folder = repository(house.folder / name, pipeline)
    made = house.ci("build", "--no-follow", str(folder))
    assert made.returncode == 0, made.stderr
    return f"local/{name}"


def test_agents_are_listed(house: House) -> None:
    (agent,) = agents(house)
    assert (agent["name"], agent["status"]) == ("agent-of-house", "idle")
    wait_for("its load", lambda: agents(house)[0]["disk_free_bytes"] > 0, LIMIT_S)
    assert house.ci("agents").stdout.startswith("agent-of-house")
    assert "there is no agent nobody" in house.ci("agents", "nobody", "drain").stderr
    assert "expected one of" in house.ci("agents", "agent-of-house", "fire").stderr
    assert "which agent?" in house.ci("agents", "--labels", "a=b").stderr


def test_a_drained_agent_takes_up_work_again_without_a_restart(house: House) -> None:
    assert "takes nothing new" in tell(house, "drain")
    slug = start(house, "drained", exec_pipeline("true"))
    wait_for("the drain", lambda: agents(house)[0]["state"] == "draining", LIMIT_S)
    assert builds(house, slug) == ["pending"]
    assert "takes work again" in tell(house, "undrain")
    wait_for("the build", lambda: builds(house, slug) == ["success"], LIMIT_S)


def test_other_labels_count_at_once(house: House) -> None:
    labelled = exec_pipeline("true") + "node:\n  zone: b\n"
    slug = start(house, "labelled", labelled)
    assert builds(house, slug) == ["pending"]
    tell(house, "--labels", "zone=b")
    assert agents(house)[0]["labels"] == {"zone": "b"}
    wait_for("the build", lambda: builds(house, slug) == ["success"], LIMIT_S)
    tell(house, "--labels", "")
    plain = start(house, "plain", exec_pipeline("true"))
    wait_for("the build", lambda: builds(house, plain) == ["success"], LIMIT_S)


def test_a_disabled_agent_finishes_leaves_and_comes_back_when_enabled(house: House) -> None:
    gate = house.folder / "gate"
    slug = start(house, "disabled", exec_pipeline(f"until test -e {gate}; do sleep 0.1; done"))
    wait_for("the stage", lambda: builds(house, slug) == ["running"], LIMIT_S)
    tell(house, "disable")
    log = house.data_dir / "log" / "agent.log"
    wait_for("the order", lambda: "REQUESTED" in log.read_text(), LIMIT_S)
    assert builds(house, slug) == ["running"]
    gate.touch()
    wait_for("the build", lambda: builds(house, slug) == ["success"], LIMIT_S)
    wait_for("its end", lambda: agents(house)[0]["left"] > 0, LIMIT_S)
    wait_for("the refusal", lambda: "disabled the agent agent-of-house" in log.read_text(), LIMIT_S)
    tell(house, "enable")
    wait_for("its return", lambda: status(house) == "idle", LIMIT_S)


def test_a_revoked_agent_stops_what_it_runs(house: House) -> None:
    mark = house.folder / "pid"
    slug = start(house, "revoked", exec_pipeline(f"echo $$ > {mark}", "sleep 600"))
    wait_for("the step", lambda: mark.exists() and mark.read_text().strip(), LIMIT_S)
    tell(house, "revoke")
    assert builds(house, slug) == ["error"]
    process = Path("/proc") / mark.read_text().strip()
    wait_for("the end of the step", lambda: not process.exists(), LIMIT_S)
    tell(house, "enable")
    wait_for("its return", lambda: status(house) == "idle", LIMIT_S)


def test_a_deleted_agent_that_runs_joins_anew(house: House) -> None:
    (before,) = agents(house)
    refused = house.ci("agents", "agent-of-house", "delete")
    assert refused.returncode == 2
    assert "use force=true" in refused.stderr
    tell(house, "delete", "--force")
    wait_for("its return", lambda: [a["id"] for a in agents(house)] != [before["id"]], LIMIT_S)
    wait_for("its word", lambda: agents(house) and status(house) == "idle", LIMIT_S)
    slug = start(house, "deleted", exec_pipeline("true"))
    wait_for("the build", lambda: builds(house, slug) == ["success"], LIMIT_S)
