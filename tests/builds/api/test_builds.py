from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError

from builds import claims, logs, triggers
from builds.models import Agent, Build, Repo, Stage, Step, User
from pipeline.wire import Claim
from tests.builds.api.conftest import Api

pytestmark = pytest.mark.django_db


@pytest.fixture
def path(repo: Repo) -> str:
    return f"repos/{repo.slug}/builds"


def test_a_build_is_made_of_the_default_branch(api: Api, path: str, repo: Repo) -> None:
    made = api.json("POST", path)

    assert made["number"] == 1
    assert (made["event"], made["status"], made["ref"]) == ("custom", "pending", "refs/heads/main")
    assert (made["trigger"], made["sender"]) == ("octocat", "octocat")
    assert made["before"] == made["after"]
    assert "stages" not in made


def test_query_keys_are_parameters_but_for_named_ones(api: Api, path: str) -> None:
    made = api.json("POST", f"{path}?branch=main&COLOUR=red&access_token=&debug=true")

    assert made["params"] == {"COLOUR": "red"}
    assert made["debug"] is True


def test_named_parameters_may_come_as_a_form(api: Api, path: str) -> None:
    form = "application/x-www-form-urlencoded"

    encoded = api.call("POST", path, "branch=main&COLOUR=red", content_type=form)
    multipart = api.client.post(f"/api/{path}", {"branch": "main", "COLOUR": "red"})

    for answer in (encoded, multipart):
        made = answer.json()
        assert made["target"] == "main"
        assert "params" not in made


@pytest.mark.parametrize("kind", ["text/plain", "", "application/octet-stream", "multipart/x"])
def test_the_content_type_does_not_matter(api: Api, path: str, kind: str) -> None:
    assert api.call("POST", path, "{}", content_type=kind).status_code == 200
    assert api.call("POST", path, "no JSON", content_type=kind).status_code == 200
    assert api.call("POST", path, "", content_type=kind).status_code == 200


def test_what_cannot_be_built_is_400_and_says_why(api: Api, path: str) -> None:
    status, message = api.refused("POST", f"{path}?branch=nowhere")

    assert status == 400
    assert "nowhere" in message


def test_nothing_that_matches_is_null(api: Api, make_repo: Callable[..., Repo], user: User) -> None:
    make_repo(
        "kind: pipeline\ntype: exec\nname: a\ntrigger: {event: [tag]}\n"
        "steps: [{name: a, commands: [x]}]\n",
        "never",
        owner=user,
    )

    assert api.json("POST", "repos/octocat/never/builds") is None


def test_builds_are_listed_newest_first_in_pages(api: Api, path: str) -> None:
    for _ in range(3):
        api.json("POST", path)

    assert [row["number"] for row in api.get(path)] == [3, 2, 1]
    assert [row["number"] for row in api.get(f"{path}?per_page=2")] == [3, 2]
    assert [row["number"] for row in api.get(f"{path}?per_page=2&page=2")] == [1]
    assert len(api.get(f"{path}?per_page=0")) == 3
    assert len(api.get(f"{path}?page=x&per_page=101")) == 3
    assert len(api.get(f"{path}?branch=main")) == 3
    assert api.get(f"{path}?branch=other") == []
    assert api.get(f"{path}?tag=v1") == []


def test_one_build_has_its_stages_and_steps(
    api: Api, path: str, make_agent: Callable[..., Agent]
) -> None:
    api.json("POST", path)
    claims.claim(make_agent(), Claim("nonce-0001"))

    build = api.get(f"{path}/1")

    (stage,) = build["stages"]
    assert (stage["number"], stage["name"], stage["status"], stage["machine"]) == (
        1,
        "default",
        "running",
        "one",
    )
    (step,) = stage["steps"]
    assert (step["name"], step["step_id"], step["number"]) == ("hello", stage["id"], 1)
    assert api.get(f"{path}/latest") == build
    assert api.get(f"{path}/latest?branch=main") == build
    assert api.get(f"{path}/latest?ref=refs/heads/main") == build


@pytest.mark.parametrize(
    "tail", ["9", "99999999999999999999", "latest?branch=none", "9/logs/1/1", "1/logs/9/9"]
)
def test_what_is_not_there_is_404_in_drones_words(api: Api, path: str, tail: str) -> None:
    api.json("POST", path)

    assert api.refused("GET", f"{path}/{tail}") == (404, "sql: no rows in result set")


def test_an_unknown_address_is_404_in_json(api: Api, path: str) -> None:
    assert api.refused("GET", f"{path}/one") == (404, "Not Found")
    assert api.refused("GET", "weather") == (404, "Not Found")
    assert api.refused("PUT", path)[0] == 405


def test_a_restart_has_a_parent_and_old_parameters(api: Api, path: str) -> None:
    api.json("POST", f"{path}?A=1&B=1")

    made = api.json("POST", f"{path}/1?B=2&debug=true")

    assert (made["number"], made["parent"], made["debug"]) == (2, 1, True)
    assert made["params"] == {"A": "1", "B": "2"}


def test_cancelling_answers_with_the_build_and_may_be_repeated(api: Api, path: str) -> None:
    api.json("POST", path)

    for _ in range(2):
        cancelled = api.json("DELETE", f"{path}/1")
        assert cancelled["status"] == "killed"
        assert cancelled["stages"][0]["status"] == "skipped"


def test_promotions_need_a_target(api: Api, path: str) -> None:
    api.json("POST", path)
    assert api.refused("POST", f"{path}/1/promote") == (400, "Missing target environment")

    made = api.json("POST", f"{path}/1/promote?target=production&A=1")
    back = api.json("POST", f"{path}/1/rollback?target=production")

    assert (made["event"], made["deploy_to"], made["parent"]) == ("promote", "production", 1)
    assert made["params"] == {"A": "1"}
    assert back["event"] == "rollback"
    assert [row["number"] for row in api.get(f"{path}/deployments")] == [3]


def test_blocked_stages_are_approved_or_declined(api: Api, path: str) -> None:
    api.json("POST", path)
    message = 'Cannot approve a Pipeline with Status "pending"'
    assert api.refused("POST", f"{path}/1/approve/1") == (400, message)
    Stage.objects.update(status="blocked")

    assert api.call("POST", f"{path}/1/approve/1").status_code == 204
    assert Stage.objects.get().status == "pending"

    Stage.objects.update(status="blocked")
    assert api.call("POST", f"{path}/1/decline/1").status_code == 204
    assert Stage.objects.get().status == "declined"
    assert api.refused("POST", f"{path}/1/decline")[0] == 400
    assert api.refused("POST", f"{path}/1/approve/7")[0] == 404


def test_old_builds_are_removed_with_their_logs(
    api: Api, path: str, make_agent: Callable[..., Agent]
) -> None:
    api.json("POST", path)
    claims.claim(make_agent(), Claim("nonce-0001"))
    step = Step.objects.get()
    logs.finish(step.pk, 0)
    api.json("DELETE", f"{path}/1")
    api.json("POST", path)

    assert api.refused("DELETE", f"{path}?before=x")[0] == 400
    assert api.call("DELETE", f"{path}?before=9").status_code == 204

    assert [build.number for build in Build.objects.all()] == [2]
    assert logs.position(step.pk).end is None


def test_the_newest_of_each_branch_and_pull_request(api: Api, path: str, repo: Repo) -> None:
    for event, ref in (
        ("push", "refs/heads/main"),
        ("push", "refs/heads/main"),
        ("pull_request", "refs/pull/1/head"),
    ):
        hook = triggers.Hook(event, ref, after=_head(repo), target="main")
        assert triggers.trigger(repo, hook) is not None

    assert [row["number"] for row in api.get(f"{path}/branches")] == [2]
    assert [row["number"] for row in api.get(f"{path}/pulls")] == [3]


def _head(repo: Repo) -> str:
    from builds.forges import Source, forge

    return forge("git").branch_head(Source(repo.slug, repo.git_http_url), "main")


def test_a_malformed_body_is_400(api: Api, repo: Repo) -> None:
    for body in ("{", "[]", '"x"', b"\xff"):
        assert api.refused("PATCH", f"repos/{repo.slug}", body)[0] == 400


def test_a_zero_byte_is_400(api: Api, path: str) -> None:
    assert api.refused("GET", f"{path}?branch=a%00b")[0] == 400
    assert api.refused("GET", "repos/a%00/b")[0] == 400


def test_answers_are_never_cached_and_may_be_read_from_anywhere(api: Api, path: str) -> None:
    answer = api.call("GET", path)

    assert "no-cache" in answer["Cache-Control"]
    assert answer["Access-Control-Allow-Origin"] == "*"
    preflight = Api().call("OPTIONS", path)
    assert preflight.status_code == 204
    assert "Authorization" in preflight["Access-Control-Allow-Headers"]


def test_an_absent_database_is_503_with_retry_after(
    api: Api, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_args: Any, **_values: Any) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(triggers, "create", locked)
    answer = api.call("POST", path)

    assert answer.status_code == 503
    assert int(answer["Retry-After"]) > 0
