"""What a build left behind, as its page shows it: tests and artifacts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote

from builds import artifacts, reports
from builds.models import Build, TestCase
from dashboard.presenters import words

#: Names of tests that are shown at once; the API gives more.
MOST_TESTS = 25


@dataclass(frozen=True, slots=True)
class Test:
    """A test in a list; `note` says why it is in it."""

    __test__ = False
    suite: str
    name: str
    note: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Tests:
    """The tests of a build: a sentence with the numbers, and those worth a look."""

    __test__ = False
    summary: str
    took: str
    failed: tuple[Test, ...]
    more_failed: int
    flaky: tuple[Test, ...]
    slowest: tuple[Test, ...]
    unread: tuple[Test, ...]


@dataclass(frozen=True, slots=True)
class File:
    """An artifact: where it can be downloaded, and until when."""

    path: str
    url: str
    size_bytes: int
    stage: str
    expires: datetime | None


def tests(build: Build) -> Tests | None:
    """The tests of a build; None if it has no reports."""
    found = reports.summary(build)
    if not found.total and not found.unread:
        return None
    numbers = (
        (found.passed, "passed"),
        (found.failed, "failed"),
        (found.skipped, "skipped"),
    )
    failed = [_test(one) for one in found.failures[:MOST_TESTS]]
    flaky = [
        Test(one.suite, one.name, f"failed {one.failed} of {one.failed + one.passed}")
        for one in found.flaky[:MOST_TESTS]
    ]
    return Tests(
        summary=", ".join(f"{number} {word}" for number, word in numbers if number) or "no tests",
        took=words.duration(timedelta(seconds=found.duration_s)),
        failed=tuple(failed),
        more_failed=found.failed - len(failed),
        flaky=tuple(flaky),
        slowest=tuple(_test(one, timed=True) for one in found.slowest if one.duration_s),
        unread=tuple(_test(one) for one in found.unread[:MOST_TESTS]),
    )


def _test(row: TestCase, *, timed: bool = False) -> Test:
    took = words.duration(timedelta(seconds=row.duration_s))
    return Test(row.suite, row.name, took if timed else "", row.message)


def files(build: Build) -> list[File]:
    """The artifacts of a build."""
    place = f"/api/repos/{quote(build.repo.slug)}/builds/{build.number}/artifacts"
    return [
        File(
            path=one.path,
            url=f"{place}/{quote(one.path)}",
            size_bytes=one.size_bytes,
            stage=one.stage.name,
            expires=one.expires,
        )
        for one in artifacts.found(build)
    ]
