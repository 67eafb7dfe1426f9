from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from builds import triggers
from builds.forges.base import ForgeError
from builds.models import Agent, Stage
from dashboard.presenters import builds as present
from tests.dashboard import seed

pytestmark = pytest.mark.django_db


# --- the list -------------------------------------------------------------------------------------


def test_it_lists_builds_newest_first_and_pages(as_reader: Client, web: Any) -> None:
    for number in range(1, 34):
        seed.build(web, number)

    first = as_reader.get("/octocat/web")
    older = as_reader.get("/octocat/web?before=4")

    assert [row.build.number for row in first.context["rows"]] == list(range(33, 3, -1))
    assert "before=4" in first.content.decode()
    assert [row.build.number for row in older.context["rows"]] == [3, 2, 1]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({"q": "second"}, [2]),
        ({"q": "feature"}, [3]),
        ({"q": "ada"}, [1]),
        ({"q": "abc123"}, [2]),
        ({"q": "#3"}, [3]),
        ({"status": "failure"}, [2]),
        ({"status": "nonsense"}, [3, 2, 1]),
        ({"before": "x"}, [3, 2, 1]),
        ({"q": "nothing like it"}, []),
    ],
)
def test_it_searches(
    as_reader: Client, web: Any, query: dict[str, str], numbers: list[int]
) -> None:
    seed.build(web, 1, message="First", author_name="Ada", target="main", ref="", after="f")
    seed.build(web, 2, "failure", message="Second", target="main", ref="", after="abc1234")
    seed.build(web, 3, message="Third", target="feature", ref="", after="e")

    rows = as_reader.get("/octocat/web", query).context["rows"]

    assert [row.build.number for row in rows] == numbers


# --- one build ------------------------------------------------------------------------------------


def test_it_shows_facts_stages_steps_and_the_log_of_the_failed_step(
    as_reader: Client, web: Any
) -> None:
    seed.failed(web, 47)

    page = as_reader.get("/octocat/web/47").content.decode()

    for text in ("Retry the upload", "retry-upload → main", "Li Wei", "golangci", "exit code 1"):
        assert (text in page) is (text != "golangci")
    assert '<span class="f1">FAIL</span>' in page
    assert 'id="L11"' in page


def test_it_shows_the_step_asked_for(as_reader: Client, web: Any) -> None:
    seed.failed(web, 47)

    response = as_reader.get("/octocat/web/47/1/3")

    assert "golangci-lint" in response.content.decode()
    assert response.context["step"].name == "lint"


@pytest.mark.parametrize("path", ["/octocat/web/99", "/octocat/web/47/1/99", "/octocat/web/47/9/1"])
def test_what_is_not_there_is_not_found(as_reader: Client, web: Any, path: str) -> None:
    seed.failed(web, 47)

    response = as_reader.get(path)

    assert response.status_code == 404
    assert "There is nothing at this address" in response.content.decode()


def test_it_escapes_what_others_wrote(as_reader: Client, web: Any) -> None:
    evil = "<img src=x onerror=alert(1)>"
    made = seed.build(web, 1, message=evil, target=evil, author_name=evil, link="javascript:x()")
    step = seed.step(seed.stage(made, 1, evil), 1, evil, error=evil, image=evil)
    seed.write_log(step, [evil, f"\x1b[31m{evil}\x1b]8;;javascript:x()\x07"])

    page = as_reader.get("/octocat/web/1").content.decode()

    assert "<img" not in page
    assert "javascript:" not in page


def test_it_says_why_things_wait(as_reader: Client, web: Any) -> None:
    seed.running(web, 48)

    page = as_reader.get("/octocat/web/48").content.decode()

    assert "no agent has joined" in page
    assert "after linux-amd64, linux-arm64" in page


def test_it_says_that_an_agent_is_lost(web: Any) -> None:
    made = seed.build(web, 1, "running")
    stage = seed.stage(made, 1, "test", "running", lost=made.created)

    (row,) = present.stage_rows(made, [stage], None)

    assert row.note == "agent lost: builder-1 is silent"


def test_a_build_that_could_not_run_says_what_to_mend(as_reader: Client, web: Any) -> None:
    seed.build(web, 1, "error", error=".drone.yml:7:3: unknown key “comands”")

    page = as_reader.get("/octocat/web/1").content.decode()

    assert ".drone.yml:7:3: unknown key" in page
    assert "This build could not run" in page


def test_live_answers_the_head_and_the_stages_asked_for(as_reader: Client, web: Any) -> None:
    made = seed.running(web, 48)
    step = made.stages.get(number=1).steps.get(number=3)

    part = as_reader.get(f"/octocat/web/48/live?stage=1&step={step.pk}").content.decode()
    whole = as_reader.get("/octocat/web/48/live").content.decode()

    assert part.count('hx-swap-oob="true"') == 4
    assert 'id="log-facts"' in part
    assert 'id="build-head"' in part
    assert 'id="stage-1"' in part
    assert 'aria-current="true"' in part
    assert whole.count('hx-swap-oob="true"') == 4


def test_choosing_a_step_swaps_the_log_and_the_list(as_reader: Client, web: Any) -> None:
    seed.failed(web, 47)

    part = as_reader.get("/octocat/web/47/1/3", headers={"HX-Request": "true"}).content.decode()

    assert part.lstrip().startswith("<step-log")
    assert part.count('hx-swap-oob="true"') == 1
    assert "<html" not in part


@pytest.mark.parametrize(
    ("statuses", "chosen"),
    [
        (["success", "running", "pending"], 2),
        (["success", "failure", "skipped"], 2),
        (["success", "success", "success"], 3),
        (["pending", "pending", "pending"], 1),
        (["success", "skipped", "killed"], 3),
    ],
)
def test_it_opens_the_step_worth_looking_at(web: Any, statuses: list[str], chosen: int) -> None:
    stage = seed.stage(seed.build(web, 1, "running"), 1, "default", "running")
    for number, status in enumerate(statuses, 1):
        seed.step(stage, number, f"s{number}", status)

    step = present.choose(present.load_stages(stage.build))

    assert step is not None
    assert step.number == chosen


def test_a_build_page_takes_few_queries(
    as_reader: Client, web: Any, django_assert_max_num_queries: Any
) -> None:
    made = seed.build(web, 1, "running")
    for number in range(1, 6):
        stage = seed.stage(made, number, f"stage-{number}", "running")
        for step in range(1, 8):
            seed.step(stage, step, f"step-{step}")

    with django_assert_max_num_queries(14):
        as_reader.get("/octocat/web/1")


# --- what people do -------------------------------------------------------------------------------


def test_a_writer_cancels_a_build(as_writer: Client, web: Any) -> None:
    made = seed.running(web, 48)

    response = as_writer.post("/octocat/web/48/cancel")

    assert response.headers["Location"] == "/octocat/web/48"
    made.refresh_from_db()
    assert made.status == "killed"


def test_cancelling_an_ended_build_says_so(as_writer: Client, web: Any) -> None:
    seed.build(web, 1)

    page = as_writer.post("/octocat/web/1/cancel", follow=True).content.decode()

    assert "had ended before" in page


def test_a_writer_restarts_a_build(
    as_writer: Client, web: Any, writer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed.build(web, 1)
    asked: list[Any] = []

    def restart(build: Any, *, user: Any, debug: bool) -> Any:
        asked.append((build.number, user, debug))
        return seed.build(web, 2)

    monkeypatch.setattr(triggers, "restart", restart)

    response = as_writer.post("/octocat/web/1/restart")

    assert response.headers["Location"] == "/octocat/web/2"
    assert asked == [(1, writer, False)]


def test_a_restart_that_fails_says_why(
    as_writer: Client, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed.build(web, 1)

    def restart(*_args: Any, **_more: Any) -> Any:
        raise ForgeError("the remote does not answer")

    monkeypatch.setattr(triggers, "restart", restart)

    page = as_writer.post("/octocat/web/1/restart", follow=True).content.decode()

    assert "the remote does not answer" in page


def test_a_writer_starts_a_build(
    as_writer: Client, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def create(_repo: Any, **more: Any) -> Any:
        asked.update(more)
        return seed.build(web, 1)

    monkeypatch.setattr(triggers, "create", create)
    data = {"branch": "feature", "commit": "ABC123", "parameters": "A=1\n\nB = two = 2"}

    response = as_writer.post("/octocat/web/new", data)

    assert response.headers["Location"] == "/octocat/web/1"
    del asked["user"]
    assert asked == {
        "branch": "feature",
        "commit": "abc123",
        "params": {"A": "1", "B": "two = 2"},
    }


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"commit": "main"}, "Expected a commit hash"),
        ({"branch": "--force"}, "Not a name that git allows"),
        ({"parameters": "no equals"}, "Line 1: expected NAME=value"),
    ],
)
def test_the_form_says_what_is_wrong(as_writer: Client, data: dict[str, str], said: str) -> None:
    response = as_writer.post("/octocat/web/new", data)

    assert response.status_code == 422
    assert said in response.content.decode()


@pytest.mark.parametrize("answer", [None, ForgeError("no such branch: nope")])
def test_a_build_that_cannot_start_says_why(
    as_writer: Client, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    def create(*_args: Any, **_more: Any) -> Any:
        if answer is not None:
            raise answer
        return None

    monkeypatch.setattr(triggers, "create", create)

    response = as_writer.post("/octocat/web/new", {"branch": "nope"})

    assert response.status_code == 422
    said = "no such branch: nope" if answer else "No pipeline in the file"
    assert said in response.content.decode()


def test_an_admin_of_the_repo_approves_and_declines(as_admin: Client, web: Any) -> None:
    first = seed.stage(seed.build(web, 1, "pending"), 1, "build", "blocked")
    second = seed.stage(seed.build(web, 2, "pending"), 1, "build", "blocked")

    assert "Approve" in as_admin.get("/octocat/web/1").content.decode()
    as_admin.post("/octocat/web/1/approve")
    as_admin.post("/octocat/web/2/decline")
    again = as_admin.post("/octocat/web/2/decline", follow=True).content.decode()

    statuses = dict(Stage.objects.values_list("pk", "status"))
    assert (statuses[first.pk], statuses[second.pk]) == ("pending", "declined")
    assert "Cannot decline" in again


@pytest.mark.parametrize("action", ["cancel", "restart", "approve", "decline", "new", "settings"])
def test_readers_may_not(as_reader: Client, web: Any, action: str) -> None:
    made = seed.running(web, 48)
    path = (
        f"/octocat/web/{action}" if action in ("new", "settings") else f"/octocat/web/48/{action}"
    )

    response = as_reader.post(path)

    assert response.status_code == 403
    assert "You may look at octocat/web" in response.content.decode()
    made.refresh_from_db()
    assert made.status == "running"
    page = as_reader.get("/octocat/web/48").content.decode()
    assert 'id="cancel"' not in page


@pytest.mark.parametrize("action", ["approve", "decline"])
def test_writers_may_not_approve(as_writer: Client, web: Any, action: str) -> None:
    stage = seed.stage(seed.build(web, 1, "pending"), 1, "build", "blocked")

    assert as_writer.post(f"/octocat/web/1/{action}").status_code == 403
    stage.refresh_from_db()
    assert stage.status == "blocked"


@pytest.mark.parametrize(
    "path",
    ["/octocat/web", "/octocat/web/48", "/octocat/web/48/1/3", "/octocat/web/48/live",
     "/octocat/web/48/1/3/log.txt", "/octocat/web/48/1/3/lines"],
)  # fmt: skip
def test_strangers_learn_nothing(client: Client, web: Any, path: str) -> None:
    seed.running(web, 48)
    stranger = Client()
    stranger.force_login(seed.user("eve"))

    assert stranger.get(path).status_code == 404
    assert stranger.get(path.replace("web", "nosuch")).status_code == 404
    assert client.get(path).headers["Location"].startswith("/login")
    assert client.get(path.replace("web", "nosuch")).headers["Location"].startswith("/login")


@pytest.mark.parametrize("action", ["cancel", "restart", "approve", "decline"])
def test_nothing_is_done_by_get(as_admin: Client, web: Any, action: str) -> None:
    seed.running(web, 48)

    assert as_admin.get(f"/octocat/web/48/{action}").status_code == 405


def test_a_stage_says_which_attempt_it_is(web: Any) -> None:
    made = seed.build(web, 1, "running", age=timedelta(minutes=1))
    agent = Agent.objects.create(
        name="box", token_prefix="x", token_sha256="x", joined=made.created, seen=made.created
    )
    stage = seed.stage(made, 1, "test", "running", machine="", agent=agent, attempt=2)

    (row,) = present.stage_rows(made, [stage], None)

    assert row.note == "on box, attempt 2"
