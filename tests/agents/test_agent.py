"""The agent against the server double: claims, reports, logs, faults of the line, its own death."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from agents.agent import Agent, JoinRefused
from agents.drivers import leftovers
from agents.drivers.scripted import ScriptedDriver
from agents.link import Stopped
from agents.options import Options
from agents.state import StateError
from builds.reports import unpack
from pipeline import states
from pipeline.spec import CLONE, SERVICE, CloneSpec, Retry, StageSpec
from pipeline.wire import Orders
from tests.agents.conftest import stage, step
from tests.agents.double import JOIN_TOKEN, Answer, Double, Lease
from tests.services import wait_for

Make = Callable[..., Agent]


def calls(double: Double) -> list[str]:
    return [call for call in double.calls if call != "presence"]


def run(agent: Agent, double: Double, spec: StageSpec) -> Lease:
    """Run one stage to its end in this thread."""
    if agent.identity is None:
        agent.start()
    before = set(double.leases)
    double.add(spec)
    agent.serve()
    (new,) = set(double.leases) - before
    return double.leases[new]


@pytest.fixture
def serving() -> Iterator[Callable[[Agent], threading.Thread]]:
    """Lets an agent serve in a thread of its own, which ends with the test."""
    threads: list[threading.Thread] = []

    def serve(agent: Agent) -> threading.Thread:
        thread = threading.Thread(target=agent.serve)
        threads.append(thread)
        thread.start()
        return thread

    yield serve
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


Serve = Callable[[Agent], threading.Thread]


# --- a plain stage ---


def test_it_runs_an_exec_stage_in_three_calls(make_agent: Make, double: Double) -> None:
    lease = run(make_agent(), double, stage(step("hello", "echo hello", "echo world")))
    assert lease.last.status == states.SUCCESS
    assert lease.text(1) == "+ echo hello\nhello\n+ echo world\nworld\n"
    assert lease.logs[1].end == 4
    assert [call for call in calls(double) if call != "batch"] == [
        "join", "claim", "report", "report", "claim",
    ]  # fmt: skip


def test_a_newer_server_is_understood(make_agent: Make, double: Double) -> None:
    double.more = {"v": 2, "tomorrow": {"a": [1, None]}}
    lease = run(make_agent(), double, stage(step("hello", "echo hello")))
    assert lease.last.status == states.SUCCESS
    assert lease.text(1) == "+ echo hello\nhello\n"


def test_reports_tell_ages_ends_and_exit_codes(
    make_agent: Make, double: Double, scripted: ScriptedDriver
) -> None:
    first = step("a", "echo x", "exit 3")
    lease = run(make_agent(scripted), double, stage(first, step("b", depends_on=("a",))))
    report = lease.last
    assert (report.status, report.exit_code, report.done) == (states.FAILURE, 3, True)
    assert report.started_ms >= report.stopped_ms >= 0
    one, two = report.steps
    assert (one.status, one.exit_code, one.log_end) == (states.FAILURE, 3, 1)
    assert one.started_ms >= one.stopped_ms >= 0
    assert (two.status, two.started_ms, two.log_end) == (states.SKIPPED, -1, 0)


def test_the_stage_has_begun_before_a_step_starts(
    make_agent: Make, double: Double, scripted: ScriptedDriver
) -> None:
    double.fault("report", "refuse", 2)
    agent = make_agent(scripted)
    begun: list[bool] = []
    start = ScriptedDriver.open

    class Watching(ScriptedDriver):
        def open(self, spec: StageSpec, room: object) -> object:  # type: ignore[override]
            session = start(self, spec, room)  # type: ignore[arg-type]
            original = session.start

            def watched(*arguments: object) -> object:
                begun.append(any(one.begun for one in double.only_lease().reports))
                return original(*arguments)  # type: ignore[arg-type]

            session.start = watched  # type: ignore[method-assign, assignment]
            return session

    agent = make_agent(Watching(), state_dir=agent.options.state_dir.with_name("other"))
    run(agent, double, stage(step("a", "echo x")))
    assert begun == [True]


def test_secrets_are_masked(make_agent: Make, double: Double) -> None:
    secret = step("a", 'echo "the token is $TOKEN"', secrets={"TOKEN": "token"})
    lease = run(make_agent(), double, stage(secret, secrets={"token": "hunter2x"}))
    assert lease.text(1).endswith("the token is ******\n")


def test_it_clones_before_it_begins(make_agent: Make, double: Double, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    script = (
        f"git init -q -b main {repo} && cd {repo} && echo hi > file && git add . && "
        "git -c user.name=o -c user.email=o@example.com commit -q -m First"
    )
    subprocess.run(["sh", "-c", script], check=True)
    spec = stage(
        step("clone", kind=CLONE),
        step("read", "cat file", depends_on=("clone",)),
        clone=CloneSpec(remote=str(repo), ref="refs/heads/main", branch="main"),
    )
    lease = run(make_agent(), double, spec)
    assert lease.last.status == states.SUCCESS, lease.text(1)
    assert "First" in lease.text(1)
    assert lease.text(2) == "+ cat file\nhi\n"


def test_a_failed_clone_skips_the_steps(make_agent: Make, double: Double, tmp_path: Path) -> None:
    spec = stage(
        step("clone", kind=CLONE),
        step("a", "echo never", depends_on=("clone",)),
        clone=CloneSpec(remote=str(tmp_path / "nowhere"), branch="main"),
    )
    lease = run(make_agent(), double, spec)
    assert [one.status for one in lease.last.steps] == [states.FAILURE, states.SKIPPED]
    assert lease.last.exit_code == 128
    assert "nowhere" in lease.text(1)


def test_services_run_beside_and_end_with_the_stage(make_agent: Make, double: Double) -> None:
    spec = stage(
        step("db", "echo up", "sleep 600", kind=SERVICE),
        step("test", "echo tested", depends_on=("db",)),
    )
    lease = run(make_agent(max_procs=1), double, spec)
    assert lease.last.status == states.SUCCESS
    assert [one.status for one in lease.last.steps] == [states.SUCCESS] * 2
    assert lease.logs[1].end == lease.logs[1].next


def test_a_step_is_tried_again(make_agent: Make, double: Double) -> None:
    flaky = step("a", "test -f seen || { touch seen; exit 1; }", retry=Retry(count=2))
    lease = run(make_agent(), double, stage(flaky))
    assert lease.last.status == states.SUCCESS
    assert "--- attempt 2 of 3 ---\n" in lease.text(1)
    assert "attempt 3" not in lease.text(1)


def test_a_step_ends_at_its_limit(make_agent: Make, double: Double) -> None:
    lease = run(make_agent(), double, stage(step("a", "sleep 600", timeout_s=0.2)))
    assert (lease.last.status, lease.last.steps[0].exit_code) == (states.FAILURE, 137)


def test_a_stage_ends_at_its_limit(make_agent: Make, double: Double) -> None:
    lease = run(make_agent(), double, stage(step("a", "sleep 600"), timeout_s=0.3))
    assert lease.last.status == states.KILLED
    assert "limit of 0.3 s" in lease.last.error


def test_what_the_policy_refuses_says_so(make_agent: Make, double: Double) -> None:
    agent = make_agent(limit_repos=("someone/*",))
    lease = run(agent, double, stage(step("a", "echo never")))
    assert lease.last.status == states.ERROR
    assert "limit-repos" in lease.last.refused
    assert lease.last.error == lease.last.refused
    assert lease.last.steps[0].status == states.SKIPPED


def test_a_session_that_cannot_open_is_an_error(make_agent: Make, double: Double) -> None:
    agent = make_agent(ScriptedDriver(refuse_open="no engine"))
    lease = run(agent, double, stage(step("a")))
    assert (lease.last.status, lease.last.error) == (states.ERROR, "no engine")


def test_a_step_that_cannot_start_is_an_error(
    make_agent: Make, double: Double, scripted: ScriptedDriver
) -> None:
    lease = run(make_agent(scripted), double, stage(step("a", "refuse no image")))
    assert lease.last.status == states.ERROR
    assert (lease.last.steps[0].error, lease.last.steps[0].exit_code) == ("no image", 255)
    assert (lease.last.error, lease.last.exit_code) == ("no image", 255)


def test_a_secret_does_not_stand_in_an_error(
    make_agent: Make, double: Double, scripted: ScriptedDriver
) -> None:
    one = step("a", "refuse bad login hunter2 for x", secrets={"A": "login"})
    lease = run(make_agent(scripted), double, stage(one, secrets={"login": "hunter2"}))
    assert lease.last.steps[0].error == lease.last.error == "bad login ****** for x"


def test_a_fault_of_the_agent_itself_is_told(
    make_agent: Make, double: Double, scripted: ScriptedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(spec: StageSpec, room: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(scripted, "open", broken)
    lease = run(make_agent(scripted), double, stage(step("a")))
    assert (lease.last.status, lease.last.done) == (states.ERROR, True)
    assert "no such luck" in lease.last.error


def test_a_stage_that_cannot_be_kept_on_disk_is_told(
    make_agent: Make, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make_agent()

    def full(lease: str, nonce: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(agent.state, "open_lease", full)
    lease = run(agent, double, stage(step("a", "echo never")))
    assert lease.last.status == states.ERROR
    assert "No space left" in lease.last.error


def test_nothing_is_left_on_disk(make_agent: Make, double: Double, options: Options) -> None:
    agent = make_agent()
    run(agent, double, stage(step("a", "echo x > file")))
    agent.finish()
    assert list((options.state_dir / "leases").iterdir()) == []
    assert list((options.state_dir / "claims").iterdir()) == []
    assert list(options.work_dir.glob("drone-*")) == []


def test_the_pre_job_hook_speaks_first_and_exports(
    make_agent: Make, double: Double, tmp_path: Path
) -> None:
    hook = tmp_path / "hook"
    hook.write_text("echo from the hook; export GREETING=hello\n")
    agent = make_agent(pre_job_hook_path=str(hook), source_pre_job_hook=True)
    lease = run(agent, double, stage(step("a", "echo $GREETING")))
    assert lease.text(1) == "from the hook\n+ echo $GREETING\nhello\n"


def test_a_failing_pre_job_hook_can_fail_the_stage(
    make_agent: Make, double: Double, tmp_path: Path
) -> None:
    hook = tmp_path / "hook"
    hook.write_text("echo no; exit 9\n")
    agent = make_agent(pre_job_hook_path=str(hook), fail_on_pre_job_hook_error=True)
    lease = run(agent, double, stage(step("a", "echo never")))
    assert lease.last.status == states.ERROR
    assert "exit code 9" in lease.last.error
    assert lease.last.steps[0].status == states.SKIPPED
    assert lease.text(1) == "no\n"


# --- cancelling ---


def test_an_order_cancels_a_stage(make_agent: Make, double: Double, serving: Serve) -> None:
    agent = make_agent()
    agent.start()
    double.add(stage(step("a", "echo started", "sleep 600"), step("b", depends_on=("a",))))
    serving(agent)
    lease = double.wait(lambda: double.leases and double.only_lease())
    double.wait(lambda: lease.logs[1].lines)
    double.order(Orders(cancelled=(lease.id,)))
    double.wait_done()
    assert lease.last.status == states.KILLED
    assert [one.status for one in lease.last.steps] == [states.KILLED, states.SKIPPED]


def test_the_answer_to_a_batch_cancels_a_stage(
    make_agent: Make, double: Double, serving: Serve
) -> None:
    agent = make_agent()
    agent.start()
    double.add(stage(step("a", "while :; do echo tick; sleep 0.05; done")))
    double.pace_ms = 0
    serving(agent)
    lease = double.wait(lambda: double.leases and double.only_lease())
    lease.cancel = True
    double.wait_done()
    assert lease.last.status == states.KILLED


def test_a_stage_cancelled_before_it_began_starts_nothing(
    make_agent: Make, double: Double, scripted: ScriptedDriver
) -> None:
    agent = make_agent(scripted)
    agent.start()
    double.add(stage(step("a", "echo never")))
    report = double.report

    def cancelling(id_: str, data: object) -> object:
        double.leases[id_].cancel = True
        return report(id_, data)

    double.report = cancelling  # type: ignore[method-assign]
    agent.serve()
    assert scripted.started == []
    lease = double.only_lease()
    assert (lease.last.status, lease.last.steps[0].status) == (states.KILLED, states.SKIPPED)


def test_a_closed_lease_stops_the_stage_and_still_takes_lines(
    make_agent: Make, double: Double, serving: Serve
) -> None:
    agent = make_agent()
    agent.start()
    double.report_s = 0.1
    last = "trap 'echo last words; exit 1' TERM"
    double.add(stage(step("a", last, "echo ready", "while :; do sleep 0.1; done")))
    thread = serving(agent)
    lease = double.wait(lambda: double.leases and double.only_lease())
    double.wait(lambda: "\nready\n" in lease.text(1))
    lease.closed = True
    thread.join(60)
    assert not lease.done
    assert lease.text(1).endswith("last words\n")


# --- the line ---


@pytest.mark.parametrize("fault", ["drop", "lose_answer", "refuse"])
@pytest.mark.parametrize("kind", ["claim", "report", "batch"])
def test_no_fault_of_the_line_loses_or_repeats_anything(
    make_agent: Make, double: Double, kind: str, fault: str
) -> None:
    agent = make_agent()
    agent.start()
    double.pace_ms = 0
    double.fault(kind, fault, 3)
    lines = "i=0; while [ $i -lt 200 ]; do echo line $i; sleep 0.002; i=$((i+1)); done"
    lease = run(agent, double, stage(step("a", lines)))
    assert lease.last.status == states.SUCCESS
    assert lease.text(1).splitlines()[1:] == [f"line {number}" for number in range(200)]
    assert len(double.leases) == 1
    assert list((agent.options.state_dir / "claims").iterdir()) == []


def test_a_stage_goes_on_while_the_server_is_away(
    make_agent: Make, double: Double, serving: Serve, tmp_path: Path
) -> None:
    agent = make_agent()
    agent.start()
    go, done = tmp_path / "go", tmp_path / "done"
    commands = [
        "echo before",
        f"while [ ! -f {go} ]; do sleep 0.02; done",
        "i=0; while [ $i -lt 10000 ]; do echo line $i; i=$((i+1)); done",
    ]
    after = step("b", f"touch {done}", depends_on=("a",))
    double.add(stage(step("a", *commands), after))
    serving(agent)
    lease = double.wait(lambda: double.leases and double.only_lease())
    double.wait(lambda: "before" in lease.text(1))
    double.away()
    go.touch()
    wait_for("the next step", done.exists)
    assert not lease.done
    double.away(False)
    double.wait_done()
    assert lease.last.status == states.SUCCESS
    lines = [line for line in lease.text(1).splitlines() if line.startswith("line ")]
    assert lines == [f"line {number}" for number in range(10_000)]
    assert lease.logs[1].next == lease.logs[1].end


def test_a_lost_answer_to_the_claim_is_asked_for_again(make_agent: Make, double: Double) -> None:
    agent = make_agent()
    agent.start()
    double.fault("claim", "lose_answer")
    lease = run(agent, double, stage(step("a", "echo x")))
    assert [claim.nonce for claim in double.claims[:2]] == [lease.nonce] * 2


def test_live_lines_go_at_once_while_somebody_watches(
    make_agent: Make, double: Double, serving: Serve, tmp_path: Path
) -> None:
    agent = make_agent()
    agent.start()
    double.pace_ms = 0
    go = tmp_path / "go"
    wait = f"while [ ! -f {go} ]; do sleep 0.01; done"
    double.add(stage(step("a", "echo one", f"printf 'two: '; {wait}; echo three")))
    serving(agent)
    lease = double.wait(lambda: double.leases and double.only_lease())
    double.wait(lambda: lease.logs[1].lines[-1:] == [b"two: "])
    assert lease.logs[1].open == {lease.logs[1].next - 1}
    go.touch()
    double.wait_done()
    assert lease.logs[1].lines[-2:] == [b"two: ", b"three"]


@pytest.mark.parametrize("kind", ["batch", "report"])
def test_lines_that_the_server_cannot_take_do_not_stop_a_stage(
    make_agent: Make, double: Double, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, refused = double._append, [1]

    def sometimes(lease: Lease, number: int, start: int, data: bytes) -> int:
        if refused:
            refused.pop()
            lease.logs[number].next += 10_000 if kind == "batch" else 2
            raise Answer(400, "logs:malformed", "no batch")
        return append(lease, number, start, data)

    monkeypatch.setattr(double, "_append", sometimes)
    many = "i=0; while [ $i -lt 100000 ]; do echo 'line of some length' $i; i=$((i+1)); done"
    lease = run(make_agent(), double, stage(step("a", many if kind == "batch" else "echo x")))
    assert lease.last.status == states.SUCCESS
    assert lease.done


def test_lines_refused_in_a_report_are_sent_by_themselves(
    make_agent: Make, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, refused = double.report, [1]

    def sometimes(id_: str, data: Any) -> Any:
        if refused and data.get("logs"):
            refused.pop()
            raise Answer(400, "logs:malformed", "another step's batch in it was broken")
        return take(id_, data)

    monkeypatch.setattr(double, "report", sometimes)
    lease = run(make_agent(), double, stage(step("a", "echo x")))
    assert lease.done
    assert lease.logs[1].lines[-1] == b"x"


# --- identity ---


def test_an_agent_keeps_its_name_and_tells_who_it_was(make_agent: Make, double: Double) -> None:
    first = make_agent(name="")
    first.start()
    first.finish()
    second = make_agent(name="")
    second.start()
    one, two = double.joins
    assert one.name == two.name != ""
    assert (one.previous, two.previous, two.previous_token) == (0, 7, double.token)
    assert (two.types, two.capacity) == (("exec",), 2)


def test_it_says_what_it_is(make_agent: Make, double: Double) -> None:
    about = {"os": "freebsd", "arch": "arm", "variant": "v7", "kernel": "14", "concurrency": 3}
    make_agent(labels={"zone": "a"}, **about).start()
    (join,) = double.joins
    assert (join.os, join.arch, join.variant, join.kernel) == ("freebsd", "arm", "v7", "14")
    assert (join.labels, join.types, join.capacity) == ({"zone": "a"}, ("exec",), 3)


def test_tickets_may_come_from_elsewhere(make_agent: Make, double: Double) -> None:
    double.broker_url = "redis://inside"
    agent = make_agent(redis_url="redis://outside")
    agent.start()
    assert agent.broker_url == "redis://outside"


def test_identity_is_for_the_agents_eyes_only(make_agent: Make, options: Options) -> None:
    make_agent().start()
    path = options.state_dir / "identity.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert options.state_dir.stat().st_mode & 0o777 == 0o700


def test_a_refused_join_says_why(make_agent: Make, double: Double) -> None:
    double.refuse_join = (403, "this join token has expired")
    with pytest.raises(JoinRefused, match="refused this agent: this join token has expired"):
        make_agent().start()


def test_a_server_that_is_too_old_is_left(make_agent: Make, double: Double) -> None:
    double.protocol = 0
    with pytest.raises(JoinRefused, match="speaks version 0 of the agent protocol"):
        make_agent().start()


def test_a_second_agent_on_the_same_state_is_refused(make_agent: Make, options: Options) -> None:
    make_agent()
    with pytest.raises(StateError, match="another agent is running on the state directory"):
        Agent(options)


def test_an_agent_whose_token_was_renewed_goes_on(make_agent: Make, double: Double) -> None:
    agent = make_agent()
    agent.start()
    double.token = "another-token"
    lease = run(agent, double, stage(step("a", "echo x")))
    assert lease.last.status == states.SUCCESS
    assert len(double.joins) == 2


def test_a_server_that_is_away_is_asked_again_ever_more_rarely(
    make_agent: Make, double: Double
) -> None:
    with structlog.testing.capture_logs() as lines:
        agent = make_agent()
        agent.start()
        double.wait(lambda: double.presences)
        double.away()
        double.order(Orders())  # ends the call that is held
        wait_for("tries", lambda: sum("Attempting" in line["event"] for line in lines) > 2)
        double.away(False)
        calls = len(double.presences)
        double.wait(lambda: len(double.presences) > calls)
        agent.finish()
    tries = [line for line in lines if line["event"].startswith("Attempting to reconnect in ")]
    assert [line["attempt"] for line in tries[:3]] == [1, 2, 3]
    assert tries[1]["log_level"] == "warning"


def test_an_agent_that_was_shut_out_stops_what_it_runs(make_agent: Make, double: Double) -> None:
    agent = make_agent()
    agent.start()
    double.add(stage(step("long", "echo started", "sleep 600")))
    slot = threading.Thread(target=agent.serve)
    slot.start()
    lease = double.wait(lambda: double.leases and double.only_lease())
    double.wait(lambda: lease.logs[1].lines)
    double.refuse_join = (403, "an administrator disabled this agent")
    double.token = "another-token"
    double.order(Orders())
    slot.join(60)
    assert not slot.is_alive()
    assert agent.leaving == "REQUESTED"
    assert agent.finish() == 0


# --- coming and going ---


def test_a_draining_agent_claims_nothing_and_says_so(make_agent: Make, double: Double) -> None:
    agent = make_agent()
    agent.start()
    agent.interrupt()
    agent.serve()
    assert "claim" not in double.calls
    double.wait(lambda: double.presences)
    double.order(Orders())  # the call that is held ends
    double.wait(lambda: double.presences[-1].state == "draining")
    assert agent.finish() == 0
    assert double.left == ["INTERRUPTED"]


def test_a_paused_agent_resumes(make_agent: Make, double: Double) -> None:
    queues: list[tuple[str, ...]] = []
    agent = make_agent()
    agent.on_queues = queues.append
    agent.start()
    double.order(Orders(action="drain", reason="maintenance"))
    wait_for("the pause", lambda: agent.is_closed)
    double.wait(lambda: double.presences[-1].state == "draining")
    double.order(Orders(queues=("ci.q.exec.linux.amd64",)))
    wait_for("the end of the pause", lambda: not agent.is_closed)
    assert queues == [(), ("ci.q.exec.linux.amd64",)]


def test_an_order_to_shut_down_is_obeyed(make_agent: Make, double: Double) -> None:
    agent = make_agent()
    agent.start()
    double.order(Orders(action="shutdown"))
    wait_for("the drain", agent.draining.is_set)
    agent.finish()
    assert double.left == ["REQUESTED"]


def test_a_one_shot_agent_leaves_after_one_stage(make_agent: Make, double: Double) -> None:
    agent = make_agent(disconnect_after_job=True)
    agent.start()
    double.add(stage(step("a", "echo x")))
    double.add(stage(step("b", "echo y")))
    agent.serve()
    assert len(double.leases) == 1
    agent.finish()
    assert double.left == ["JOB_FINISHED"]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_idle_agent_leaves(options: Options, double: Double) -> None:
    clock = Clock()
    agent = Agent(replace(options, disconnect_after_idle_timeout=30.0), clock=clock)
    agent.start()
    agent.tick()
    assert agent.leaving is None
    clock.now += 31
    agent.tick()
    agent.finish()
    assert double.left == ["IDLE"]


def test_an_agent_that_cannot_sync_leaves_with_an_exit_code(
    make_agent: Make, double: Double
) -> None:
    agent = make_agent(sync_timeout=60.0)
    agent.start()
    double.away()
    agent.tick()
    assert agent.leaving is None
    agent.gate.heard -= 1000
    agent.tick()
    assert agent.leaving == "UNABLE_TO_SYNC"
    assert agent.finish() == 1


def test_an_agent_that_cannot_even_join_leaves(make_agent: Make, double: Double) -> None:
    agent = make_agent(sync_timeout=60.0)
    double.away()
    with ThreadPoolExecutor(1) as pool:
        joining = pool.submit(agent.start)
        agent.gate.heard -= 1000
        agent.tick()
        with pytest.raises(Stopped):
            joining.result(60)
    assert agent.leaving == "UNABLE_TO_SYNC"
    assert agent.finish() == 1


def test_a_full_disk_takes_no_work(make_agent: Make, double: Double) -> None:
    agent = make_agent(disk_free_min=1 << 60)
    agent.start()
    agent.serve()
    assert "claim" not in double.calls


def test_max_procs_bounds_steps_of_all_stages(
    make_agent: Make, double: Double, scripted: ScriptedDriver, serving: Serve
) -> None:
    agent = make_agent(scripted, max_procs=1)
    agent.start()
    for name in ("a", "b"):
        double.add(stage(step(name, "hold")))
    threads = [serving(agent), serving(agent)]
    double.wait(
        lambda: len(double.leases) == 2 and all(one.reports for one in double.leases.values())
    )
    wait_for("one step", lambda: len(scripted.started) == 1)
    scripted.release()
    for thread in threads:
        thread.join(60)
    assert len(scripted.started) == 2


# --- its own death ---


LIFE = """
import sys
from pathlib import Path
from agents.agent import Agent
from agents.link import Stopped
from agents.options import Options
url, token, state = sys.argv[1:]
agent = Agent(Options(
    server=url, token=token, name="agent-of-tests", state_dir=Path(state),
    work_dir=Path(state).with_name("work"), isolation="shell", exec_untrusted=True,
    disk_free_min=0, backoff=0.2, backoff_max=0.4))
agent.start()
agent.serve()
"""


def kill_during(double: Double, options: Options, ready: Callable[[], object]) -> None:
    """Live a life of an agent in another process, and end it by SIGKILL when `ready`."""
    argv = [sys.executable, "-c", LIFE, double.url, JOIN_TOKEN, str(options.state_dir)]
    life = subprocess.Popen(argv, cwd=Path(__file__).parents[2], start_new_session=True)
    try:
        double.wait(lambda: life.poll() is not None or ready())
        assert life.poll() is None, "the life ended by itself"
    finally:
        life.kill()
        life.wait()


def test_a_later_life_reports_an_orphan_with_all_its_lines(
    make_agent: Make, double: Double, options: Options, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    endless = f"echo $$ > {pid}; i=0; while :; do echo line $i; i=$((i+1)); done"
    first, waiting = step("a", "echo done"), step("c", depends_on=("b",))
    double.add(stage(first, step("b", endless, depends_on=("a",)), waiting))
    double.pace_ms = 50
    kill_during(
        double, options, lambda: double.leases and double.only_lease().logs[2].next > 20_000
    )
    double.away(False)
    agent = make_agent()
    agent.start()
    (lease,) = double.wait_done()
    report = lease.last
    assert report.status == states.ERROR
    assert "the agent was restarted" in report.error
    assert [one.status for one in report.steps] == [states.SUCCESS, states.ERROR, states.SKIPPED]
    log = lease.logs[2]
    assert log.next == log.end
    numbers = [line for line in log.lines if line.startswith(b"line ")]
    assert numbers == [b"line %d" % number for number in range(len(numbers))]
    seen = leftovers.look(int(pid.read_text()))
    assert seen is None or seen.state == "Z"
    wait_for("the end of it", lambda: not list((options.state_dir / "leases").iterdir()))


def test_a_later_life_delivers_test_reports(
    make_agent: Make, double: Double, options: Options
) -> None:
    double.fault("results", "drop", 1000)
    made = step("a", "echo '<testsuite/>' > r.xml", reports=("*.xml",))
    double.add(stage(made, step("b", "sleep 600", depends_on=("a",))))
    kill_during(double, options, lambda: len(double._faults["results"]) < 1000)
    double._faults["results"].clear()
    agent = make_agent()
    agent.start()
    (lease,) = double.wait_done()
    assert list(unpack(lease.results[1])) == [("r.xml", b"<testsuite/>\n")]
    wait_for("the end of it", lambda: not list((options.state_dir / "leases").iterdir()))


def test_a_later_life_runs_what_had_not_begun(
    make_agent: Make, double: Double, options: Options
) -> None:
    double.add(stage(step("a", "echo x")))
    double.fault("report", "drop", 1000)
    kill_during(double, options, lambda: double.leases)
    double._faults["report"].clear()
    agent = make_agent()
    agent.start()
    agent.serve()
    lease = double.only_lease()
    assert lease.last.status == states.SUCCESS
    assert lease.text(1) == "+ echo x\nx\n"
    assert [claim.nonce for claim in double.claims][:2] == [lease.nonce] * 2


def test_what_a_stopped_agent_could_not_tell_is_told_later(
    make_agent: Make, double: Double, options: Options, serving: Serve
) -> None:
    agent = make_agent()
    agent.start()
    double.add(stage(step("a", "echo x")))
    double.fault("report", "lose_answer", 1)
    report = double.report

    def away_after_begin(id_: str, data: object) -> object:
        answer = report(id_, data)
        double.away()
        return answer

    double.report = away_after_begin  # type: ignore[method-assign]
    thread = serving(agent)
    double.wait(lambda: double.is_away())
    agent.finish()
    thread.join(60)
    double.report = report  # type: ignore[method-assign]
    double.away(False)
    assert len(list((options.state_dir / "claims").iterdir())) == 1
    later = make_agent()
    later.start()
    later.serve()
    assert double.only_lease().last.status == states.SUCCESS
