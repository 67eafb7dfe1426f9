"""The pages around a failed step that is kept for debugging."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from builds.models import Agent, Build, Hold, Lease, Perm, Repo, Stage, Step, User

pytestmark = pytest.mark.django_db

PAGE = "/octocat/hello/7/1/1/shell"


@pytest.fixture
def hold() -> Hold:
    """A kept step of a private repo's build in debug."""
    now = timezone.now()
    times = {"created": now, "updated": now}
    repo = Repo.objects.create(namespace="octocat", name="hello", slug="octocat/hello")
    build = Build.objects.create(
        repo=repo, number=7, event="push", status="running", debug=True, **times
    )
    stage = Stage.objects.create(build=build, repo=repo, number=1, status="running", **times)
    step = Step.objects.create(stage=stage, number=1, name="test", status="running", started=now)
    agent = Agent.objects.create(name="one", joined=now, seen=now)
    lease = Lease.objects.create(
        id="l1", stage=stage, attempt=1, agent=agent, nonce="n", created=now, seen=now
    )
    expires = now + timedelta(minutes=10)
    return Hold.objects.create(step=step, lease=lease, exit_code=4, created=now, expires=expires)


def client(repo: Repo, **rights: bool) -> Client:
    user = User.objects.create_user("someone")
    if rights:
        Perm.objects.create(user=user, repo=repo, **rights)
    made = Client()
    made.force_login(user)
    return made


def text(answer: Any) -> str:
    return str(answer.content.decode())


def test_the_build_page_invites_writers_and_tells_readers(hold: Hold) -> None:
    repo = hold.step.stage.repo
    reader, writer = client(repo, read=True), Client()
    user = User.objects.create_user("writer")
    Perm.objects.create(user=user, repo=repo, write=True)
    writer.force_login(user)

    told, invited = text(reader.get("/octocat/hello/7")), text(writer.get("/octocat/hello/7"))

    for page in (told, invited):
        assert "waits for debugging" in page
        assert "exit code 4" in page
    assert PAGE not in told
    assert PAGE in invited


def test_the_shells_page_lets_its_own_styles_in_and_no_others(hold: Hold) -> None:
    answer = client(hold.step.stage.repo, write=True).get(PAGE)

    assert answer.status_code == 200
    assert f'data-socket="/ws/shell/{hold.pk}"' in text(answer)
    nonce = text(answer).partition('data-nonce="')[2].partition('"')[0]
    policy = answer.headers["Content-Security-Policy"]
    assert f"style-src 'self' 'nonce-{nonce}'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("rights", "status"), [({}, 404), ({"read": True}, 403), ({"write": True}, 200)]
)
@pytest.mark.parametrize("foreign", [False, True], ids=["own", "fork"])
def test_who_may(hold: Hold, rights: Any, status: int, foreign: bool) -> None:
    if foreign:
        Build.objects.update(source_repo="stranger/hello")
        status = 403 if status == 200 else status
    someone = client(hold.step.stage.repo, **rights)

    assert someone.get(PAGE).status_code == status
    ended = someone.post(f"{PAGE}/end")
    assert ended.status_code == (302 if status == 200 else status)
    assert Hold.objects.get().released is (status == 200)


def test_what_is_kept_no_more_is_said(hold: Hold) -> None:
    Hold.objects.all().delete()
    someone = client(hold.step.stage.repo, write=True)

    assert "Nothing is kept here" in text(someone.get(PAGE))
    assert someone.post(f"{PAGE}/end").status_code == 302


def test_a_restart_in_debug_is_offered(hold: Hold) -> None:
    Build.objects.update(status="failure", source_repo="stranger/hello")
    writer = client(hold.step.stage.repo, write=True)
    assert "restart-debug" not in text(writer.get("/octocat/hello/7"))

    Build.objects.update(source_repo="")
    assert "restart-debug" in text(writer.get("/octocat/hello/7"))
