from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import zstandard
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builds import claims, logs, secrets, transitions, triggers
from builds.claims import LeaseClosed, NotYours, Refused
from builds.encryption import encrypt
from builds.models import Agent, Build, JoinToken, Lease, LogBatch, Repo, Secret, Stage, Step, User
from pipeline.spec import to_json
from pipeline.wire import Claim, Claimed, LogPart, Report, StepReport

TWO_STEPS = """\
kind: pipeline
type: exec
name: default
clone:
  disable: true
steps:
- name: one
  commands: [echo one]
- name: two
  failure: ignore
  commands: [echo two]
"""
NONCES = (f"nonce-{number:04}" for number in itertools.count())


def batch(text: str) -> bytes:
    return zstandard.compress(b"{}\n" + text.encode())


def ask(agent: Agent, nonce: str = "") -> Claimed | None:
    return claims.claim(agent, Claim(nonce or next(NONCES)))


def asked(agent: Agent, nonce: str = "") -> Claimed:
    claimed = ask(agent, nonce)
    assert claimed is not None
    return claimed


@pytest.fixture
def agent(make_agent: Callable[..., Agent]) -> Agent:
    return make_agent()


@pytest.fixture
def start(make_repo: Callable[..., Repo], user: User) -> Callable[..., Build]:
    """Trigger a build of a pipeline text."""

    def trigger(text: str = TWO_STEPS, **fields: Any) -> Build:
        repo = make_repo(text, **fields)
        build = triggers.create(repo, user=user)
        assert build is not None
        return build

    return trigger


# --- claims ---------------------------------------------------------------------------------------


def test_the_same_nonce_gets_the_same_answer(agent: Agent, start: Callable[..., Build]) -> None:
    start()
    first, again = asked(agent, "nonce-same"), asked(agent, "nonce-same")
    assert to_json(first) == to_json(again)
    assert Lease.objects.count() == 1 and Step.objects.count() == 2


def test_another_nonce_never_gets_the_same_attempt(
    agent: Agent, make_agent: Callable[..., Agent], start: Callable[..., Build]
) -> None:
    start()
    asked(agent, "nonce-same")
    assert ask(agent) is None
    assert ask(make_agent("two"), "nonce-same") is None


def test_a_nonce_whose_lease_ended_gets_nothing(agent: Agent, start: Callable[..., Build]) -> None:
    start()
    asked(agent, "nonce-same")
    transitions.requeue(Stage.objects.get())
    assert ask(agent, "nonce-same") is None
    second = asked(agent)
    assert second.spec.attempt == 2
    assert Step.objects.count() == 2


@pytest.mark.parametrize("nonce", ["", "short", "x" * 65])
def test_a_malformed_nonce_is_refused(agent: Agent, nonce: str) -> None:
    with pytest.raises(Refused):
        claims.claim(agent, Claim(nonce))


@pytest.mark.parametrize(
    "changes",
    [{"disabled": True}, {"drain": True}, {"join_token": None}],
)
def test_some_agents_get_no_work(
    agent: Agent, start: Callable[..., Build], changes: dict[str, Any]
) -> None:
    start()
    Agent.objects.update(**changes)
    agent = Agent.objects.select_related("join_token").get()
    assert ask(agent) is None


def test_an_expired_token_gives_no_work(agent: Agent, start: Callable[..., Build]) -> None:
    start()
    JoinToken.objects.update(expires=timezone.now() - timedelta(seconds=1))
    assert ask(Agent.objects.select_related("join_token").get()) is None


def test_what_does_not_compile_is_an_error_and_the_next_is_tried(
    agent: Agent, start: Callable[..., Build]
) -> None:
    broken = start(TWO_STEPS.replace("echo one", '"echo ${X-y}"'), name="broken")
    start(name="fine")
    assert asked(agent).spec.repo == "octocat/fine"
    stage = broken.stages.get()
    assert (stage.status, stage.exit_code) == ("error", 255)
    assert ".drone.yml:" in stage.error
    assert Build.objects.get(pk=broken.pk).status == "error"


def test_what_breaks_the_compiler_does_not_stop_the_queue(
    agent: Agent, start: Callable[..., Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    monkeypatch.setattr(claims, "compile_stage", lambda *_args, **_names: 1 / 0)
    assert ask(agent) is None
    stage = Stage.objects.get()
    assert (stage.status, stage.error) == (
        "error",
        "internal error: ZeroDivisionError: division by zero",
    )


def test_a_stage_without_its_text_is_an_error(agent: Agent, start: Callable[..., Build]) -> None:
    start().config.delete()
    assert ask(agent) is None
    assert Stage.objects.get().status == "error"


def test_asking_again_keeps_the_lease_alive(agent: Agent, start: Callable[..., Build]) -> None:
    start()
    asked(agent, "nonce-same")
    Lease.objects.update(seen=timezone.now() - timedelta(minutes=2))
    asked(agent, "nonce-same")
    assert timezone.now() - Lease.objects.get().seen < timedelta(minutes=1)


def test_a_private_repo_gets_its_hosts_credentials_and_no_others(
    agent: Agent, start: Callable[..., Build], settings: Any
) -> None:
    settings.GIT_CREDENTIALS = ("https://octo:p%40ss@git.example.com:8443",)
    start()
    for url, private, login in (
        ("https://git.example.com:8443/o/n.git", True, "octo"),
        ("https://git.example.com:8443/o/n.git", False, None),
        ("http://git.example.com:8443/o/n.git", True, None),
        ("https://evil.example.com/git.example.com:8443", True, None),
    ):
        Repo.objects.update(git_http_url=url, private=private)
        spec = asked(agent, "nonce-same").spec
        assert (spec.netrc and spec.netrc.login) == login
        if spec.netrc:
            assert (spec.netrc.machine, spec.netrc.password) == ("git.example.com", "p@ss")
            assert "p@ss" in spec.masks


def test_the_stage_says_who_runs_it_since_when(agent: Agent, start: Callable[..., Build]) -> None:
    build = start()
    spec = asked(agent).spec
    stage = Stage.objects.get()
    assert (stage.status, stage.machine, stage.agent, stage.attempt) == ("running", "one", agent, 1)
    assert stage.started is not None
    assert spec.environment["DRONE_STAGE_MACHINE"] == "one"
    assert spec.environment["DRONE_STAGE_STARTED"] == str(int(stage.started.timestamp()))
    assert spec.environment["DRONE_COMMIT_SHA"] == build.after
    steps = Step.objects.order_by("number").values_list("name", "errignore", "status")
    assert list(steps) == [("one", False, "pending"), ("two", True, "pending")]


def test_later_stages_know_which_failed(agent: Agent, start: Callable[..., Build]) -> None:
    second = TWO_STEPS.replace("name: default", "name: after\ndepends_on: [default]")
    start(f"{TWO_STEPS}---\n{second}trigger:\n  status: [failure]\n")
    first = asked(agent)
    claims.report(agent, first.lease, Report("failure", done=True))
    assert asked(agent).spec.environment["DRONE_FAILED_STAGES"] == "default"


def test_secrets_travel_in_the_answer(agent: Agent, start: Callable[..., Build]) -> None:
    text = TWO_STEPS.replace(
        "  commands: [echo one]",
        "  environment:\n    A: {from_secret: repo}\n    B: {from_secret: Org}\n"
        "    C: {from_secret: file}\n    D: {from_secret: nobody}\n  commands: [echo one]",
    )
    build = start(text)
    repo = build.repo
    data = encrypt(secrets.repo_secret(repo), "from the file")
    config = build.config
    config.data += f"---\nkind: secret\nname: file\ndata: {data}\n"
    config.save()
    Secret.objects.create(repo=repo, name="REPO", data_sealed=secrets.seal("from the repo"))
    Secret.objects.create(namespace="octocat", name="org", data_sealed=secrets.seal("from above"))
    assert asked(agent).spec.secrets == {
        "repo": "from the repo", "Org": "from above", "file": "from the file", "nobody": "",
    }  # fmt: skip


def test_an_encrypted_secret_of_another_repo_is_an_error(
    agent: Agent, start: Callable[..., Build]
) -> None:
    data = encrypt("0" * 32, "stolen")
    uses = TWO_STEPS.replace(
        "  commands: [echo one]",
        "  environment:\n    A: {from_secret: file}\n  commands: [echo one]",
    )
    start(f"{uses}---\nkind: secret\nname: file\ndata: {data}\n")
    assert ask(agent) is None
    assert "secret `file`" in Stage.objects.get().error


@pytest.mark.parametrize("stored", [True, False])
def test_an_encrypted_secret_that_nobody_needs_opened_is_no_error(
    agent: Agent, start: Callable[..., Build], stored: bool
) -> None:
    data = encrypt("x" * 32, "from another repo")
    condition = "" if stored else "\n  when: {event: tag}"
    uses = TWO_STEPS.replace(
        "  commands: [echo one]",
        "  environment:\n    A: {from_secret: file}\n  commands: [echo one]" + condition,
    )
    repo = start(f"{uses}---\nkind: secret\nname: file\ndata: {data}\n").repo
    if stored:
        Secret.objects.create(repo=repo, name="file", data_sealed=secrets.seal("stored"))
    assert asked(agent).spec.secrets == {"file": "stored" if stored else ""}


# --- reports --------------------------------------------------------------------------------------


def result() -> list[Any]:
    """What the rows say, without times."""
    steps = Step.objects.order_by("number").values_list("status", "exit_code", "error")
    stage = Stage.objects.get()
    return [Build.objects.get().status, stage.status, stage.exit_code, stage.error, *steps]


def snapshots(*ends: str) -> list[Report]:
    """Everything an agent says of a stage of two steps that end like this, in time's order."""
    codes = {"success": 0, "failure": 3}
    ended = [StepReport(n, end, codes[end], "", 40, 10) for n, end in enumerate(ends, 1)]
    running = [StepReport(n, "running", started_ms=20) for n in (1, 2)]
    pending = [StepReport(n, "pending") for n in (1, 2)]
    final = "failure" if ends[0] == "failure" else "success"
    return [
        Report("running", False, steps=(pending[0], pending[1])),
        Report("running", True, steps=(running[0], pending[1])),
        Report("running", True, steps=(ended[0], pending[1])),
        Report("running", True, steps=(ended[0], running[1])),
        Report(final, True, True, 3 if final == "failure" else 0, steps=(ended[0], ended[1])),
    ]


@pytest.mark.parametrize(
    "ends", [("success", "success"), ("failure", "success"), ("success", "failure")]
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=12
)
@given(data=st.data())
def test_order_and_repeats_of_reports_do_not_matter(
    agent: Agent, start: Callable[..., Build], ends: tuple[str, str], data: st.DataObject
) -> None:
    every = snapshots(*ends)
    order = data.draw(st.lists(st.sampled_from(every), max_size=8))
    repo = Repo.objects.first() or start().repo
    owner = User.objects.get()

    def play(reports: list[Report]) -> list[Any]:
        Build.objects.all().delete()
        triggers.create(repo, user=owner)
        lease = asked(agent).lease
        for one in reports:
            try:
                claims.report(agent, lease, one)
            except LeaseClosed:
                assert Lease.objects.get().state == "closed"
        return result()

    assert play([*order, every[-1]]) == play(every)


def test_a_failure_that_is_ignored_does_not_fail_the_stage(
    agent: Agent, start: Callable[..., Build]
) -> None:
    start()
    lease = asked(agent).lease
    claims.report(agent, lease, snapshots("success", "failure")[-1])
    assert result()[:2] == ["success", "success"]


def test_steps_overrule_a_stage_that_calls_itself_a_success(
    agent: Agent, start: Callable[..., Build]
) -> None:
    start()
    failed = StepReport(1, "failure", 3)
    claims.report(agent, asked(agent).lease, Report("success", done=True, steps=(failed,)))
    assert result()[:2] == ["failure", "failure"]
    assert list(Step.objects.order_by("number").values_list("status", flat=True)) == [
        "failure",
        "skipped",
    ]


def test_a_stage_that_ends_as_nothing_legal_is_an_error(
    agent: Agent, start: Callable[..., Build]
) -> None:
    start()
    claims.report(agent, asked(agent).lease, Report("blocked", done=True, error="what?"))
    assert result()[:4] == ["error", "error", 0, "what?"]


def test_a_refusal_names_agent_and_rule(agent: Agent, start: Callable[..., Build]) -> None:
    start()
    refusal = Report("error", done=True, exit_code=255, refused="limit-repos")
    claims.report(agent, asked(agent).lease, refusal)
    assert result()[3] == "agent one refused this stage: limit-repos"


def test_ages_become_times_of_the_server(agent: Agent, start: Callable[..., Build]) -> None:
    start()
    step = StepReport(1, "success", 0, "", 60_000, 20_000)
    before = timezone.now()
    claims.report(agent, asked(agent).lease, Report("running", True, steps=(step,)))
    row = Step.objects.get(number=1)
    assert row.started is not None and row.stopped is not None
    assert abs((row.stopped - row.started) - timedelta(seconds=40)) < timedelta(milliseconds=1)
    assert abs(before - row.started - timedelta(seconds=60)) < timedelta(seconds=30)


def test_another_agents_lease_is_not_yours(
    agent: Agent, make_agent: Callable[..., Agent], start: Callable[..., Build]
) -> None:
    start()
    lease, other = asked(agent).lease, make_agent("two")
    with pytest.raises(NotYours):
        claims.report(other, lease, Report("success", done=True))
    with pytest.raises(NotYours):
        claims.append_log(other, lease, 1, 0, batch("x\n"))
    with pytest.raises(NotYours):
        claims.append_log(agent, lease, 99, 0, batch("x\n"))
    assert result()[0] == "running"


def test_a_closed_lease_takes_lines_but_no_report(
    agent: Agent, start: Callable[..., Build]
) -> None:
    start()
    lease = asked(agent).lease
    done = snapshots("success", "success")[-1]
    claims.report(agent, lease, done)
    late = LogPart(1, 0, base64.b64encode(batch("late\n")).decode())
    with pytest.raises(LeaseClosed):
        claims.report(agent, lease, Report("failure", True, True, logs=(late,)))
    assert result()[0] == "success"
    assert claims.append_log(agent, lease, 1, 1, batch("later\n")).next == 2
    assert b"".join(logs.text(Step.objects.get(number=1).pk)) == b"late\nlater\n"


def test_a_batch_that_is_no_base64_is_refused(agent: Agent, start: Callable[..., Build]) -> None:
    start()
    with pytest.raises(logs.BatchError):
        claims.report(agent, asked(agent).lease, Report("running", logs=(LogPart(1, 0, "?"),)))


def test_lines_of_an_attempt_that_runs_anew_elsewhere_are_refused(
    agent: Agent, start: Callable[..., Build]
) -> None:
    start()
    lease = asked(agent).lease
    claims.append_log(agent, lease, 1, 0, batch("old\n"))
    transitions.requeue(Stage.objects.get())
    assert not LogBatch.objects.exists()
    asked(agent)
    with pytest.raises(LeaseClosed):
        claims.append_log(agent, lease, 1, 1, batch("old\n"))
    with pytest.raises(LeaseClosed):
        claims.report(agent, lease, Report("success", done=True))


# --- cancel ---------------------------------------------------------------------------------------


def test_a_cancel_is_final_at_once_and_its_lease_closes_with_the_agent(
    agent: Agent, start: Callable[..., Build]
) -> None:
    build = start()
    lease = asked(agent).lease
    every = snapshots("success", "success")
    claims.report(agent, lease, every[1])
    assert transitions.cancel(build.pk, by="octocat")
    killed = ["killed", "killed", 0, "", ("killed", 130, ""), ("skipped", 130, "")]
    assert result() == killed
    assert Lease.objects.get().state == "closing"

    assert claims.report(agent, lease, every[3]).cancel
    assert claims.append_log(agent, lease, 1, 0, batch("last words\n")).cancel
    ended = StepReport(1, "killed", 137, "", 9, 1, log_end=1)
    last = Report("killed", True, True, 137, steps=(ended, StepReport(2, "skipped")))
    assert claims.report(agent, lease, last).cancel
    assert result() == [*killed[:4], ("killed", 137, ""), ("skipped", 130, "")]
    assert Lease.objects.get().state == "closed"
    assert logs.position(Step.objects.get(number=1).pk).complete
    assert not transitions.cancel(build.pk, by="octocat")
