"""Reports become rows, and rows a summary."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from builds import reports, triggers
from builds.models import Build, Repo, Stage, TestCase, User
from builds.reports import Flaky, ReportError
from pipeline.wire import MAX_REPORTS_BYTES

pytestmark = pytest.mark.django_db


def pack(**files: str | bytes) -> bytes:
    """Files as an agent sends them."""
    data = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
    head = json.dumps({"files": [[name, len(text)] for name, text in data.items()]})
    return zstandard.compress(head.encode() + b"\n" + b"".join(data.values()))


def suite(**results: str) -> str:
    """A report with these tests."""
    inside = {"passed": "", "failed": "<failure message='no'/>", "skipped": "<skipped/>"}
    cases = [f'<testcase name="{n}" time="1">{inside[r]}</testcase>' for n, r in results.items()]
    return f'<testsuite name="s">{"".join(cases)}</testsuite>'


@pytest.fixture
def make_build(make_repo: Callable[..., Repo], user: User) -> Callable[..., Build]:
    """Makes builds of one repo, which say they are of this commit."""
    repo = make_repo()

    def make(commit: str = "") -> Build:
        build = triggers.create(repo, user=user)
        assert build is not None
        if commit:
            Build.objects.filter(pk=build.pk).update(after=commit)
        build.refresh_from_db()
        return build

    return make


def stage_of(build: Build) -> Stage:
    return Stage.objects.get(build=build)


def test_it_counts_and_lists(make_build: Callable[..., Build]) -> None:
    build = make_build()

    reports.store(stage_of(build), 1, pack(a=suite(one="passed", two="failed"), b="<html/>"))
    reports.store(stage_of(build), 2, pack(c=suite(three="skipped")))

    found = reports.summary(build)
    assert (found.total, found.passed, found.failed, found.skipped) == (3, 1, 1, 1)
    assert found.duration_s == 3.0
    assert [(one.name, one.message) for one in found.failures] == [("two", "no")]
    assert {one.name for one in found.slowest} == {"one", "two"}
    assert [one.name for one in found.unread] == ["b"]
    assert "begins with <html>" in found.unread[0].message


def test_a_step_replaces_its_own_results_only(make_build: Callable[..., Build]) -> None:
    stage = stage_of(make_build())
    reports.store(stage, 1, pack(a=suite(one="failed")))
    reports.store(stage, 2, pack(a=suite(two="passed")))

    for _ in range(2):
        assert reports.store(stage, 1, pack(a=suite(one="passed"))) == 1

    rows = TestCase.objects.order_by("name").values_list("name", "result")
    assert list(rows) == [("one", "passed"), ("two", "passed")]


def test_a_test_is_flaky_that_does_both_for_one_commit(make_build: Callable[..., Build]) -> None:
    for commit, result in [("aa", "passed"), ("aa", "failed"), ("bb", "passed")]:
        build = make_build(commit)
        reports.store(stage_of(build), 1, pack(a=suite(odd=result, good="passed")))

    assert reports.summary(build).flaky == [Flaky("s", "odd", 2, 1)]


def test_a_test_is_flaky_that_changes_its_mind_often(make_build: Callable[..., Build]) -> None:
    turns = ["passed", "failed", "passed", "failed"]
    for number, result in enumerate(turns):
        build = make_build(f"commit-{number}")
        fixed = "failed" if number < 2 else "passed"
        reports.store(stage_of(build), 1, pack(a=suite(odd=result, fixed=fixed)))

    assert reports.flaky(build) == [Flaky("s", "odd", 2, 2)]


def test_old_builds_make_nothing_flaky(
    make_build: Callable[..., Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "FLAKY_BUILDS", 2)
    for result in ("failed", "passed", "passed"):
        build = make_build("aa")
        reports.store(stage_of(build), 1, pack(a=suite(odd=result)))

    assert reports.flaky(build) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no frame",
        zstandard.compress(b"{}\n"),
        zstandard.compress(b'{"files": [["a", 5]]}\nabc'),
        zstandard.compress(b'{"files": [["a", -1]]}\nabc'),
        zstandard.compress(b"[" * 100_000),
        pack(a=b"abc")[:-4],
    ],
)
def test_a_body_that_is_none_is_refused(body: bytes, make_build: Callable[..., Build]) -> None:
    with pytest.raises(ReportError):
        reports.store(stage_of(make_build()), 1, body)


def test_a_bomb_is_refused(make_build: Callable[..., Build]) -> None:
    bomb: Any = zstandard.compress(b"{}\n" + bytes(MAX_REPORTS_BYTES * 4))

    with pytest.raises(ReportError, match="at most"):
        reports.store(stage_of(make_build()), 1, bomb)
