"""The walk of a stage's graph: a row per rule."""

from __future__ import annotations

from typing import Any

import pytest

from agents.drivers.base import Outcome
from agents.execute import Walk, step_environ
from pipeline.spec import ALWAYS, CLONE, ON_FAILURE, SERVICE, Retry
from tests.agents.conftest import stage, step

OK = Outcome()
FAILED = Outcome(3)


def play(walk: Walk, outcomes: dict[str, Any]) -> list[str]:
    """Run a walk to its end, one step at a time; returns names in the order they started."""
    order: list[str] = []
    now = 0.0
    while not walk.is_over:
        ready = walk.next()
        for item in ready:
            walk.start(item.spec.number, now)
            order.append(item.spec.name)
        running = [item for item in walk.running() if not item.is_background]
        if not running:
            if not ready:
                break
            continue
        now += 1
        walk.end(running[0].spec.number, outcomes.get(running[0].spec.name, OK), now)
    return order


def chain(*steps: Any) -> Any:
    """Steps that each depend on the one before."""
    from dataclasses import replace

    names = [one.name for one in steps]
    return [
        replace(one, depends_on=(names[place - 1],) if place else ())
        for place, one in enumerate(steps)
    ]


def statuses(walk: Walk) -> dict[str, str]:
    return {item.spec.name: item.status for item in walk.steps.values()}


def test_a_chain_runs_in_order() -> None:
    walk = Walk(stage(*chain(step("a"), step("b"), step("c"))))
    assert play(walk, {}) == ["a", "b", "c"]
    assert walk.close(9.0) == "success"


def test_a_graph_starts_what_may_run_together() -> None:
    a, b, c = step("a"), step("b"), step("c", depends_on=("a", "b"))
    walk = Walk(stage(a, b, c))
    assert [item.spec.name for item in walk.next()] == ["a", "b"]


@pytest.mark.parametrize(
    ("outcome", "status", "code", "stage_status"),
    [
        (OK, "success", 0, "success"),
        (FAILED, "failure", 3, "failure"),
        (Outcome(78), "success", 78, "success"),
        (Outcome(137, oom=True), "failure", 137, "failure"),
        (Outcome(error="no image"), "error", 255, "error"),
        (Outcome(125, error="no image"), "error", 125, "error"),
    ],
)
def test_outcomes(outcome: Outcome, status: str, code: int, stage_status: str) -> None:
    walk = Walk(stage(step("a")))
    play(walk, {"a": outcome})
    assert (walk.steps[1].status, walk.steps[1].exit_code) == (status, code)
    assert walk.close(9.0) == stage_status
    assert walk.exit_code == (0 if stage_status == "success" else code)


def test_run_policies_after_a_failure() -> None:
    steps = chain(
        step("fails"),
        step("normal"),
        step("on-failure", run=ON_FAILURE),
        step("always", run=ALWAYS),
    )
    walk = Walk(stage(*steps))
    assert play(walk, {"fails": FAILED}) == ["fails", "on-failure", "always"]
    assert statuses(walk)["normal"] == "skipped"
    assert walk.close(9.0) == "failure"


def test_on_failure_is_skipped_when_all_is_well() -> None:
    walk = Walk(stage(*chain(step("a"), step("b", run=ON_FAILURE), step("c"))))
    assert play(walk, {}) == ["a", "c"]


def test_in_a_graph_a_failure_skips_other_branches() -> None:
    walk = Walk(stage(step("a"), step("b"), step("after-b", depends_on=("b",))))
    walk.next()
    walk.start(1, 0)
    walk.start(2, 0)
    walk.end(1, FAILED, 1)
    walk.end(2, OK, 2)
    assert walk.next() == []
    assert statuses(walk) == {"a": "failure", "b": "success", "after-b": "skipped"}


def test_an_ignored_failure_does_not_count() -> None:
    walk = Walk(stage(*chain(step("a", failure="ignore"), step("b"))))
    assert play(walk, {"a": FAILED}) == ["a", "b"]
    assert statuses(walk)["a"] == "failure"
    assert walk.failed_steps == ()
    assert walk.close(9.0) == "success"


def test_an_error_is_never_ignored() -> None:
    walk = Walk(stage(step("a", failure="ignore")))
    play(walk, {"a": Outcome(error="no image")})
    assert walk.close(9.0) == "error"


def test_a_fast_failure_stops_the_stage() -> None:
    walk = Walk(
        stage(step("a", failure="fast"), step("b"), step("c", run=ALWAYS, depends_on=("b",)))
    )
    walk.next()
    walk.start(1, 0)
    walk.start(2, 0)
    walk.end(1, FAILED, 1)
    assert walk.stopped_for
    walk.end(2, Outcome(143), 2)
    assert statuses(walk) == {"a": "failure", "b": "killed", "c": "skipped"}
    assert walk.close(9.0) == "failure"


def test_exit_78_skips_all_that_is_pending() -> None:
    walk = Walk(stage(*chain(step("a"), step("b"), step("c", run=ALWAYS))))
    assert play(walk, {"a": Outcome(78)}) == ["a"]
    assert walk.close(9.0) == "success"


def test_nobody_waits_for_services_and_detached_steps() -> None:
    service = step("db", kind=SERVICE)
    walk = Walk(stage(*chain(service, step("bg", detach=True), step("test"))))
    assert play(walk, {}) == ["db", "bg", "test"]
    assert walk.close(9.0) == "success"
    assert set(statuses(walk).values()) == {"success"}


def test_a_service_that_ends_badly_does_not_count() -> None:
    walk = Walk(stage(step("db", kind=SERVICE), step("test", depends_on=("db",))))
    walk.next()
    walk.start(1, 0)
    walk.end(1, Outcome(1), 1)
    assert play(walk, {}) == ["test"]
    assert walk.close(9.0) == "success"


def test_a_service_that_cannot_start_is_an_error() -> None:
    walk = Walk(stage(step("db", kind=SERVICE)))
    walk.next()
    walk.start(1, 0)
    walk.end(1, Outcome(error="no image"), 1)
    assert walk.close(9.0) == "error"


def test_cancel_kills_what_runs_and_skips_the_rest() -> None:
    walk = Walk(stage(*chain(step("a"), step("b", run=ALWAYS))))
    walk.next()
    walk.start(1, 0)
    walk.stop("cancelled")
    assert walk.next() == []
    walk.end(1, Outcome(0), 1)
    assert [(item.status, item.exit_code) for item in walk.steps.values()] == [
        ("killed", 137),
        ("skipped", 0),
    ]
    assert walk.close(9.0) == "killed"


def test_a_stage_cancelled_before_a_step_ran_is_killed() -> None:
    walk = Walk(stage(step("a")))
    walk.stop("cancelled")
    assert walk.is_over
    assert walk.close(9.0) == "killed"


def test_a_failed_setup_is_an_error() -> None:
    walk = Walk(stage(step("a")))
    walk.fail("no engine")
    assert walk.is_over
    assert (walk.close(9.0), walk.exit_code, walk.error) == ("error", 255, "no engine")


def test_a_step_over_its_limit_is_a_failure() -> None:
    walk = Walk(stage(step("a", timeout_s=5.0)))
    walk.next()
    walk.start(1, 0)
    walk.end(1, Outcome(143), 6, timed_out=True)
    assert (walk.steps[1].status, walk.steps[1].exit_code) == ("failure", 137)
    assert "limit of 5 s" in walk.steps[1].error


def test_retries_double_their_wait_and_end() -> None:
    walk = Walk(stage(step("a", retry=Retry(count=2, backoff_s=1.5))))
    walk.next()
    waits = []
    for _ in range(3):
        walk.start(1, 0)
        waits.append(walk.end(1, FAILED, 1))
    assert waits == [1.5, 3.0, None]
    assert walk.steps[1].status == "failure"


def test_only_named_outcomes_are_retried() -> None:
    walk = Walk(stage(step("a", retry=Retry(count=2, on=("error",)))))
    walk.next()
    walk.start(1, 0)
    assert walk.end(1, FAILED, 1) is None


def test_a_clone_always_runs_and_its_failure_skips_steps() -> None:
    walk = Walk(stage(*chain(step("clone", kind=CLONE), step("a"))))
    assert play(walk, {"clone": Outcome(128)}) == ["clone"]
    assert walk.close(9.0) == "failure"


def test_upcoming_are_steps_that_wait_for_running_ones() -> None:
    walk = Walk(stage(*chain(step("a"), step("b"))))
    walk.next()
    walk.start(1, 0)
    assert [item.spec.name for item in walk.upcoming()] == ["b"]


def test_upcoming_looks_beyond_one_step_only() -> None:
    walk = Walk(stage(*chain(step("a"), step("b"), step("c"), step("d"))))
    walk.next()
    walk.start(1, 0)
    assert [item.spec.name for item in walk.upcoming()] == ["b", "c"]
    behind = [step(name, number=number, depends_on=("a",)) for number, name in ((2, "b"), (3, "c"))]
    last = step("d", number=4, depends_on=("b",))
    walk = Walk(stage(step("a", number=1), *behind, last))
    walk.next()
    walk.start(1, 0)
    assert [item.spec.name for item in walk.upcoming()] == ["b", "c"]


def test_the_environment_tells_the_state_so_far() -> None:
    b = step("b", environment={"X": "own", "EMPTY": ""}, secrets={"TOKEN": "token", "NONE": "no"})
    spec = stage(
        *chain(step("a"), b),
        environment={"X": "stage", "Y": "1", "DRONE_BUILD_STATUS": "success"},
        secrets={"token": "s3cret"},
    )
    walk = Walk(spec)
    assert step_environ(walk, spec.steps[1]) == {
        "X": "own",
        "Y": "1",
        "DRONE_BUILD_STATUS": "success",
        "DRONE_STAGE_STATUS": "success",
        "DRONE_STEP_NAME": "b",
        "DRONE_STEP_NUMBER": "2",
        "TOKEN": "s3cret",
        "NONE": "",
    }
    play(walk, {"a": FAILED})
    environ = step_environ(walk, spec.steps[1])
    assert environ["DRONE_BUILD_STATUS"] == environ["DRONE_STAGE_STATUS"] == "failure"
    assert environ["DRONE_FAILED_STEPS"] == "a"
