from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from builds import transitions
from builds.models import Build, Config, Outbox, Repo, Stage, Step
from builds.transitions import IllegalMove, StageRow, StaleTransition, consequences
from pipeline import states

ROOT = Path(__file__).parents[2]


@pytest.fixture
def make_repo(make_repo: Callable[..., Repo]) -> Callable[..., Repo]:
    """Rows only: nothing here reads the repository."""
    return functools.partial(make_repo, with_git=False)


# --- one writer -----------------------------------------------------------------------------------


def status_writes(tree: ast.AST) -> list[int]:
    """Lines that assign a `.status`, or update, create or filter-free construct a row with one."""
    lines = []
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            targets = [node.target]
        if any(isinstance(t, ast.Attribute) and t.attr == "status" for t in targets):
            lines.append(node.lineno)  # type: ignore[attr-defined]
        if isinstance(node, ast.Call) and _writes_status(node):
            lines.append(node.lineno)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _is_sql(node.value):
            lines.append(node.lineno)
    return lines


WRITERS = {"update", "create", "get_or_create", "update_or_create", "bulk_update", "setattr"}


def _writes_status(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    named = any(keyword.arg == "status" for keyword in call.keywords)
    if name in {"Build", "Stage", "Step"} | WRITERS - {"bulk_update", "setattr"}:
        return named
    words = [n.value for arg in call.args for n in ast.walk(arg) if isinstance(n, ast.Constant)]
    return name in {"bulk_update", "setattr"} and "status" in words


def _is_sql(text: str) -> bool:
    words = " ".join(text.lower().split())
    return "update " in words and "set status" in words


def test_nobody_else_writes_a_status() -> None:
    found = []
    for folder in ("builds", "dashboard", "ciserver"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "migrations" in path.parts or path == ROOT / "builds/transitions.py":
                continue
            lines = status_writes(ast.parse(path.read_text()))
            found += [f"{path.relative_to(ROOT)}:{line}" for line in lines]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "stage.status = 'x'",
        "stage.status: str = 'x'",
        "rows.update(status='x')",
        "Stage(status='x')",
        "rows.bulk_update(rows, ['status'])",
        "setattr(stage, 'status', 'x')",
        "cursor.execute('UPDATE builds_stage SET status = 1')",
    ],
)
def test_the_walk_sees_every_way_to_write_one(text: str) -> None:
    assert status_writes(ast.parse(text)) == [1]


# --- the table ------------------------------------------------------------------------------------

TABLES: dict[str, tuple[type[Any], Any]] = {
    "build": (Build, states.BUILD_MOVES),
    "stage": (Stage, states.STAGE_MOVES),
    "step": (Step, states.STEP_MOVES),
}


@pytest.fixture
def rows(make_repo: Callable[..., Repo]) -> dict[str, Any]:
    """A build with one stage of one step."""
    build = Build(repo=make_repo(), event="push", after="a" * 40)
    stage = Stage(number=1, name="default", queue="ci.q.exec.linux.amd64", type="exec")
    transitions.create_build(build, [stage], Config(data=""))
    step = Step.objects.create(stage=stage, number=1, name="hello")
    return {"build": build, "stage": stage, "step": step}


@pytest.mark.parametrize("old", states.ALL)
@pytest.mark.parametrize("what", TABLES)
def test_a_move_is_made_if_the_table_has_it(rows: dict[str, Any], what: str, old: str) -> None:
    model, moves = TABLES[what]
    query = model.objects.filter(pk=rows[what].pk)
    for new in states.ALL:
        query.update(status=old)
        moved = transitions._move(query, moves, new)
        assert (new, bool(moved)) == (new, states.may_move(moves, old, new))
        assert query.get().status == (new if moved else old)


# --- what moves lead to ---------------------------------------------------------------------------


def row(
    number: int, status: str, *depends_on: str, success: bool = True, failure: bool = False
) -> StageRow:
    return StageRow(number, number, f"s{number}", status, depends_on, success, failure, "q")


WAITING = states.WAITING
CONSEQUENCES = {
    "nothing waits": ([row(1, "running")], {}),
    "released": ([row(1, "success"), row(2, WAITING, "s1")], {2: "pending"}),
    "still waits": (
        [row(1, "success"), row(2, "running"), row(3, WAITING, "s1", "s2")],
        {},
    ),
    "skipped after failure": ([row(1, "failure"), row(2, WAITING, "s1")], {2: "skipped"}),
    "skips follow": (
        [row(1, "error"), row(2, WAITING, "s1"), row(3, WAITING, "s2")],
        {2: "skipped", 3: "skipped"},
    ),
    "failure stage runs": (
        [row(1, "failure"), row(2, WAITING, "s1"), row(3, WAITING, "s2", failure=True)],
        {2: "skipped", 3: "pending"},
    ),
    "failure stage is skipped": (
        [row(1, "success"), row(2, WAITING, "s1", success=False, failure=True)],
        {2: "skipped"},
    ),
    "any failure of the build counts": (
        [row(1, "killed"), row(2, "success"), row(3, WAITING, "s2")],
        {3: "skipped"},
    ),
    "skipped counts as done": ([row(1, "skipped"), row(2, WAITING, "s1")], {2: "pending"}),
    "declined skips dependents": (
        [row(1, "declined"), row(2, WAITING, "s1", failure=True)],
        {2: "skipped"},
    ),
    "blocked is not done": ([row(1, "blocked"), row(2, WAITING, "s1")], {}),
    "both points of a matrix": (
        [row(1, "success"), StageRow(2, 2, "s1", "running", (), True, False, "q"),
         row(3, WAITING, "s1")],
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONSEQUENCES)
def test_consequences(name: str) -> None:
    stages, expected = CONSEQUENCES[name]
    assert {stage.number: status for stage, status in consequences(stages)} == expected


# --- verbs ----------------------------------------------------------------------------------------


def make_build(repo: Repo, *stages: Stage, blocked: bool = False, **fields: Any) -> Build:
    values = {"event": "push", "ref": "refs/heads/main", "after": "a" * 40, **fields}
    return transitions.create_build(
        Build(repo=repo, **values),
        list(stages),
        Config(data="", path=".drone.yml"),
        blocked=blocked,
    )


def stage(number: int = 1, *depends_on: str, **fields: Any) -> Stage:
    return Stage(number=number, name=f"s{number}", depends_on=list(depends_on), **fields)


def statuses(build: Build) -> list[str]:
    found = Stage.objects.filter(build=build).order_by("number").values_list("status", flat=True)
    return [Build.objects.get(pk=build.pk).status, *found]


def test_builds_are_numbered_per_repo(make_repo: Callable[..., Repo]) -> None:
    one, two = make_repo(name="one"), make_repo(name="two")
    made = [make_build(repo, stage()) for repo in (one, two, one)]
    assert [build.number for build in made] == [1, 1, 2]
    one.refresh_from_db()
    assert one.counter == 2


def test_a_stage_with_dependencies_waits(make_repo: Callable[..., Repo]) -> None:
    build = make_build(make_repo(), stage(1), stage(2, "s1"))
    assert statuses(build) == ["pending", "pending", WAITING]


def test_an_error_ends_the_stage_skips_dependents_and_ends_the_build(
    make_repo: Callable[..., Repo],
) -> None:
    build = make_build(make_repo(), stage(1), stage(2, "s1"), stage(3, "s1", on_failure=True))
    first = build.stages.get(number=1)
    transitions.finish_stage_error(first, "it does not compile")
    assert statuses(build) == ["pending", "error", "skipped", "pending"]
    first.refresh_from_db()
    assert (first.error, first.exit_code) == ("it does not compile", 255)
    transitions.finish_stage_error(build.stages.get(number=3), "neither does this")
    assert statuses(build)[0] == "error"
    with pytest.raises(StaleTransition):
        transitions.finish_stage_error(first, "again")


def test_cancel_ends_everything_at_once_and_only_once(make_repo: Callable[..., Repo]) -> None:
    build = make_build(make_repo(), stage(1), stage(2, "s1"))
    assert transitions.cancel(build.pk, by="octocat")
    assert statuses(build) == ["killed", "skipped", "skipped"]
    assert not transitions.cancel(build.pk, by="octocat")
    build.refresh_from_db()
    assert build.started is not None and build.finished is not None


@pytest.mark.parametrize("running", [False, True])
def test_older_builds_are_skipped(make_repo: Callable[..., Repo], running: bool) -> None:
    repo = make_repo()
    old, begun = make_build(repo, stage()), make_build(repo, stage())
    other = make_build(repo, stage(), ref="refs/heads/other")
    Build.objects.filter(pk=begun.pk).update(status=states.RUNNING)
    Stage.objects.filter(build=begun).update(status=states.RUNNING)
    new = make_build(repo, stage())
    assert transitions.cancel_older(new, running=running) == 1 + running
    assert statuses(old) == ["skipped", "skipped"]
    assert statuses(begun)[0] == ("skipped" if running else "running")
    assert statuses(other)[0] == statuses(new)[0] == "pending"


def test_approval_lets_a_blocked_stage_run(make_repo: Callable[..., Repo]) -> None:
    build = make_build(make_repo(), stage(1), stage(2, "s1"), blocked=True)
    assert statuses(build) == ["pending", "blocked", "blocked"]
    first, second = build.stages.order_by("number")
    transitions.approve(first, by="octocat")
    transitions.approve(second, by="octocat")
    assert statuses(build) == ["pending", "pending", WAITING]
    first.refresh_from_db()
    with pytest.raises(IllegalMove, match='Cannot approve a Pipeline with Status "pending"'):
        transitions.approve(first, by="octocat")


def test_approval_after_its_dependencies_ended_releases_at_once(
    make_repo: Callable[..., Repo],
) -> None:
    build = make_build(make_repo(), stage(1), stage(2, "s1"), blocked=True)
    first, second = build.stages.order_by("number")
    Stage.objects.filter(pk=first.pk).update(status=states.SUCCESS)
    transitions.approve(second, by="octocat")
    assert statuses(build) == ["pending", "success", "pending"]


def test_a_declined_build_ends_when_nothing_runs(make_repo: Callable[..., Repo]) -> None:
    build = make_build(make_repo(), stage(1), stage(2), blocked=True)
    transitions.approve(build.stages.get(number=1), by="octocat")
    transitions.decline(build, by="octocat")
    assert statuses(build) == ["pending", "pending", "declined"]
    transitions.finish_stage_error(build.stages.get(number=1), "no")
    assert statuses(build)[0] == "error"
    with pytest.raises(IllegalMove, match="Cannot decline build with status"):
        transitions.decline(build, by="octocat", number=2)


def test_a_build_declined_as_a_whole_is_declined(make_repo: Callable[..., Repo]) -> None:
    build = make_build(make_repo(), stage(1), stage(2, "s1"), blocked=True)
    transitions.decline(build, by="octocat")
    assert statuses(build) == ["declined"] * 3


def test_a_build_that_cannot_run_is_an_error_without_stages(
    make_repo: Callable[..., Repo],
) -> None:
    build = transitions.create_failed_build(Build(repo=make_repo(), event="push"), "because")
    build.refresh_from_db()
    assert (build.status, build.error, build.number) == ("error", "because", 1)
    assert build.started == build.finished


def test_only_a_forge_with_statuses_is_told(
    make_repo: Callable[..., Repo], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_build(make_repo(name="plain"), stage())
    assert not Outbox.objects.exists()
    monkeypatch.setattr("builds.outbox.has_statuses", lambda scm: scm == "github")
    build = make_build(make_repo(name="hub", scm="github"), stage())
    transitions.cancel(build.pk, by="octocat")
    told = [row.payload["status"] for row in Outbox.objects.order_by("pk")]
    assert told == ["pending", "killed"]


def test_a_cancelled_requeue_is_stale(make_repo: Callable[..., Repo]) -> None:
    build = make_build(make_repo(), stage())
    with pytest.raises(StaleTransition):
        transitions.requeue(build.stages.get())
    assert not transitions.lose(build.stages.get(), timezone.now())
