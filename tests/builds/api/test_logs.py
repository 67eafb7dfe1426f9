from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from builds import claims, logs, triggers
from builds.models import Agent, Repo, Step, User
from pipeline.wire import Claim
from tests.builds.api.conftest import Api

pytestmark = pytest.mark.django_db


def frame(*lines: str, **header: Any) -> bytes:
    body = "".join(line + "\n" for line in lines)
    return zstandard.compress(json.dumps(header).encode() + b"\n" + body.encode())


@pytest.fixture
def step(repo: Repo, user: User, make_agent: Callable[..., Agent]) -> Step:
    """A claimed step with three lines."""
    triggers.create(repo, user=user)
    claims.claim(make_agent(), Claim("nonce-0001"))
    step = Step.objects.get()
    logs.append(step.pk, 0, frame("one", "tw", open=True, t=[[0, 1500]]))
    logs.append(step.pk, 2, frame("o", "Üben", t=[[0, 2500]]))
    return step


PATH = "repos/octocat/hello/builds/1/logs/1/1"


def test_lines_are_drones(api: Api, step: Step) -> None:
    assert api.get(PATH) == [
        {"pos": 0, "out": "one\n", "time": 1},
        {"pos": 1, "out": "two\n", "time": 1},
        {"pos": 3, "out": "Üben\n", "time": 2},
    ]


def test_a_long_log_is_one_array(api: Api, step: Step) -> None:
    logs.append(step.pk, 4, frame(*map(str, range(2500))))

    assert len(api.get(PATH)) == 2503


def test_text_is_what_the_step_wrote(api: Api, step: Step) -> None:
    answer = api.call("GET", f"{PATH}/text")

    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert b"".join(answer.streaming_content).decode() == "one\ntwo\nÜben\n"
    rest = api.call("GET", f"{PATH}/text?from=3").streaming_content
    assert b"".join(rest).decode() == "Üben\n"
    assert api.refused("GET", f"{PATH}/text?from=x")[0] == 400


def test_lines_are_found(api: Api, step: Step) -> None:
    assert api.get(f"{PATH}/search?q=ONE") == [{"pos": 0, "out": "one"}]
    assert api.refused("GET", f"{PATH}/search")[0] == 400


def test_a_step_that_never_began_has_no_log(api: Api, step: Step) -> None:
    logs.delete(step.pk)

    assert api.refused("GET", PATH)[0] == 404
    Step.objects.update(status="success")
    assert api.get(PATH) == []


def test_the_log_of_a_finished_step_is_deleted(api: Api, step: Step) -> None:
    assert api.refused("DELETE", PATH) == (400, "the step still runs")
    Step.objects.update(status="success")

    assert api.call("DELETE", PATH).status_code == 204

    assert api.get(PATH) == []


def test_logs_of_private_repos_are_private(guest: Api, step: Step) -> None:
    for tail in ("", "/text", "/search?q=one"):
        assert guest.refused("GET", PATH + tail)[0] == 401
