"""JUnit reports: what testing tools of any language write about what they ran.

Reports are made by steps, hence by strangers: no entity is declared or fetched, depth, number and
texts are bounded, and nothing but the cases is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from xml.parsers import expat

PASSED: Final = "passed"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"
MAX_CASES: Final = 20_000
MAX_DEPTH: Final = 64
MAX_MESSAGE_CHARS: Final = 4000
MAX_NAME_CHARS: Final = 1000
MAX_SUITE_CHARS: Final = 500
#: What an element inside a case says of it; the reruns of surefire mark a case that passed later.
_VERDICTS: Final[Mapping[str, str]] = {"failure": FAILED, "error": FAILED, "skipped": SKIPPED}


class BadReport(Exception):
    """A report that cannot be read; the message says why in one sentence."""


@dataclass(slots=True)
class Case:
    """One test that was run."""

    suite: str
    name: str
    result: str = PASSED
    duration_s: float = 0.0
    message: str = ""


def read(data: bytes) -> list[Case]:
    """The cases of a report, in its order; a suite is a case's class, else its suite's name.

    Raises: BadReport.
    Source: the JUnit task of Ant, with what surefire, pytest and gotestsum add to it.
    """
    return _Reader().read(data)


class _Reader:
    def __init__(self) -> None:
        self._cases: list[Case] = []
        self._open: list[str] = []
        self._suites: list[str] = []
        self._case: Case | None = None
        self._text: list[str] | None = None
        self._room = 0

    def read(self, data: bytes) -> list[Case]:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.EntityDeclHandler = _refuse_entity
        parser.ExternalEntityRefHandler = _refuse_reference
        try:
            parser.Parse(data, True)
        except expat.ExpatError as fault:
            raise BadReport(f"not XML: {fault}") from fault
        except (LookupError, ValueError) as fault:  # an encoding nobody knows
            raise BadReport(f"its encoding is not known: {fault}") from fault
        return self._cases

    def _start(self, tag: str, given: Mapping[str, str]) -> None:
        tag = tag.rpartition(":")[2]
        if not self._open and tag not in ("testsuites", "testsuite"):
            raise BadReport(f"not a JUnit report: it begins with <{tag[:50]}>")
        self._open.append(tag)
        if len(self._open) > MAX_DEPTH:
            raise BadReport(f"its elements are nested more than {MAX_DEPTH} deep")
        if tag == "testsuite":
            self._suites.append(given.get("name", ""))
        elif tag == "testcase":
            self._begin(given)
        elif self._case is not None and tag in _VERDICTS and self._open[-2] == "testcase":
            self._judge(self._case, _VERDICTS[tag], given)

    def _begin(self, given: Mapping[str, str]) -> None:
        if len(self._cases) >= MAX_CASES:
            raise BadReport(f"it has more than {MAX_CASES} tests")
        suite = given.get("classname") or (self._suites[-1] if self._suites else "")
        self._case = Case(
            suite=suite[:MAX_SUITE_CHARS],
            name=(given.get("name") or "?")[:MAX_NAME_CHARS],
            duration_s=_seconds(given.get("time", "")),
        )
        self._cases.append(self._case)

    def _judge(self, case: Case, result: str, given: Mapping[str, str]) -> None:
        if case.result == FAILED:
            return  # a failure and an error of the same test: the first says enough
        case.result = result
        case.message = given.get("message", "")[:MAX_MESSAGE_CHARS]
        self._text, self._room = [], MAX_MESSAGE_CHARS

    def _characters(self, text: str) -> None:
        if self._text is not None and self._room > 0:
            self._text.append(text[: self._room])
            self._room -= len(text)

    def _end(self, tag: str) -> None:
        tag = tag.rpartition(":")[2]
        self._open.pop()
        if tag == "testsuite":
            self._suites.pop()
        elif tag == "testcase":
            self._case = None
        elif self._text is not None and self._case is not None and tag in _VERDICTS:
            self._case.message = _joined(self._case.message, "".join(self._text).strip())
            self._text = None


def _joined(message: str, text: str) -> str:
    """The short message and the trace, which often begins with it."""
    if not text or text.startswith(message):
        return text or message
    return f"{message}\n{text}"[:MAX_MESSAGE_CHARS]


def _seconds(text: str) -> float:
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value >= 0 else 0.0


def _refuse_entity(*_: object) -> None:
    raise BadReport("it declares entities, which no report needs")


def _refuse_reference(*_: object) -> bool:
    raise BadReport("it refers to something outside, which no report needs")
