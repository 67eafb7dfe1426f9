"""Results of tests: stored as steps' reports come in, summed up per build.

A step's later report replaces what it said before, so a call that is repeated changes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
import zstandard
from django.db import transaction

from builds import junit
from builds.junit import FAILED, PASSED, SKIPPED
from builds.models import Build, Stage, TestCase
from pipeline.errors import UserError
from pipeline.wire import MAX_REPORTS_BYTES

#: The result of a row that stands for a file nobody could read.
UNREAD: Final = "unread"
#: A test is flaky if it has been so in this many builds.
FLAKY_BUILDS: Final = 50
#: So many changes between passed and failed make a test flaky, whatever was committed meanwhile.
FLAKY_TURNS: Final = 3
MOST_LISTED: Final = 100
MOST_SLOWEST: Final = 10
_MAX_FILES: Final = 1000
log = structlog.get_logger(__name__)


class ReportError(UserError):
    """Reports that were not sent as the protocol says."""

    code = "reports:malformed"


@dataclass(frozen=True, slots=True)
class Flaky:
    """A test that passes and fails by chance: how often it did either in the last builds."""

    suite: str
    name: str
    passed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The tests of a build. Lists are cut; the numbers are not."""

    passed: int
    failed: int
    skipped: int
    duration_s: float
    failures: Sequence[TestCase]
    slowest: Sequence[TestCase]
    unread: Sequence[TestCase]
    flaky: Sequence[Flaky]

    @property
    def total(self) -> int:
        """All tests."""
        return self.passed + self.failed + self.skipped


# --- in -------------------------------------------------------------------------------------------


def store(stage: Stage, step: int, body: bytes) -> int:
    """Take in the reports of a step, instead of those it sent before; how many tests they have.

    A file that cannot be read does not keep out the others: it becomes a row that says why.

    Raises: ReportError for a body that is not what `pipeline.wire` describes.
    """
    rows: list[TestCase] = []
    for name, data in unpack(body):
        rows += _rows(stage, step, name, data, junit.MAX_CASES - len(rows))
    with transaction.atomic():
        TestCase.objects.filter(stage=stage, step=step).delete()
        TestCase.objects.bulk_create(rows, batch_size=500)
    log.info("reports.stored", stage_id=stage.pk, step=step, tests=len(rows))
    return len(rows)


def unpack(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a body. Raises: ReportError."""
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=MAX_REPORTS_BYTES).stream_reader(body)
        whole = reader.read(MAX_REPORTS_BYTES + 1)
    except zstandard.ZstdError as fault:
        raise ReportError(f"expected a zstd frame: {fault}") from fault
    if len(whole) > MAX_REPORTS_BYTES:
        raise ReportError(f"reports have at most {MAX_REPORTS_BYTES} bytes", "reports:too-large")
    head, _, rest = whole.partition(b"\n")
    position = 0
    for name, size in _listed(head):
        if position + size > len(rest):
            raise ReportError("a file is cut")
        yield name, rest[position : position + size]
        position += size


def _listed(head: bytes) -> list[tuple[str, int]]:
    try:
        found = json.loads(head)["files"]
        files = [(str(name).replace("\0", "?"), int(size)) for name, size in found]
    except (ValueError, KeyError, TypeError, RecursionError) as fault:
        raise ReportError(f"the first line lists the files: {fault}") from fault
    if len(files) > _MAX_FILES or any(size < 0 for _, size in files):
        raise ReportError(f"expected up to {_MAX_FILES} files with their sizes")
    return files


def _rows(stage: Stage, step: int, name: str, data: bytes, room: int) -> list[TestCase]:
    try:
        cases = junit.read(data)
        if len(cases) > room:
            raise junit.BadReport(f"the step's reports have more than {junit.MAX_CASES} tests")
    except junit.BadReport as fault:
        cases = [junit.Case("", name[: junit.MAX_NAME_CHARS], UNREAD, message=str(fault))]
    return [
        TestCase(
            repo_id=stage.repo_id,
            stage=stage,
            step=step,
            suite=case.suite,
            name=case.name,
            result=case.result,
            duration_s=case.duration_s,
            message=case.message,
        )
        for case in cases
    ]


# --- out ------------------------------------------------------------------------------------------


def summary(build: Build) -> Summary:
    """What a build's reports say, with the tests that were flaky up to it."""
    tests = TestCase.objects.filter(stage__build=build).select_related("stage")
    counts: Counter[str] = Counter()
    duration_s = 0.0
    for result, seconds in tests.values_list("result", "duration_s"):
        counts[result] += 1
        duration_s += seconds
    ran = tests.exclude(result__in=(UNREAD, SKIPPED)).order_by("-duration_s", "pk")
    return Summary(
        passed=counts[PASSED],
        failed=counts[FAILED],
        skipped=counts[SKIPPED],
        duration_s=round(duration_s, 3),
        failures=list(tests.filter(result=FAILED).order_by("pk")[:MOST_LISTED]),
        slowest=list(ran[:MOST_SLOWEST]),
        unread=list(tests.filter(result=UNREAD).order_by("pk")[:MOST_LISTED]),
        flaky=flaky(build) if counts else (),
    )


def flaky(build: Build) -> list[Flaky]:
    """Tests that passed and failed by chance in the last 50 builds of the repo, up to this one.

    Which are: those that did both for one commit, and those that changed their mind at least three
    times. The most often failed come first.
    """
    last = Build.objects.filter(repo=build.repo_id, number__lte=build.number)
    builds = dict(last.order_by("-number").values_list("pk", "after")[:FLAKY_BUILDS])
    of_these = TestCase.objects.filter(repo=build.repo_id, stage__build__in=list(builds))
    failed = of_these.filter(result=FAILED)
    wanted = set(failed.values_list("suite", "name").distinct())
    if not wanted:
        return []
    rows = (
        of_these.filter(result__in=(PASSED, FAILED), name__in=failed.values("name"))
        .order_by("stage__build_id", "stage_id", "pk")
        .values_list("suite", "name", "stage__build_id", "stage__name", "result")
    )
    return _flaky(
        (suite, name, stage, builds[build_id] or str(build_id), result)
        for suite, name, build_id, stage, result in rows.iterator()
        if (suite, name) in wanted
    )


def _flaky(rows: Iterable[tuple[str, str, str, str, str]]) -> list[Flaky]:
    """Rows are (suite, name, stage, commit, result), oldest first; stages are told apart."""
    counts: Counter[tuple[str, str, str]] = Counter()
    by_commit: dict[tuple[str, ...], str] = {}
    last: dict[tuple[str, ...], str] = {}
    turns: Counter[tuple[str, ...]] = Counter()
    found: set[tuple[str, str]] = set()
    for suite, name, stage, commit, result in rows:
        test, here = (suite, name), (suite, name, stage)
        counts[(*test, result)] += 1
        if by_commit.setdefault((*here, commit), result) != result:
            found.add(test)
        turns[here] += last.get(here, result) != result
        last[here] = result
        if turns[here] >= FLAKY_TURNS:
            found.add(test)
    every = [
        Flaky(suite, name, counts[suite, name, PASSED], counts[suite, name, FAILED])
        for suite, name in found
    ]
    return sorted(every, key=lambda one: (-one.failed, one.suite, one.name))[:MOST_LISTED]
