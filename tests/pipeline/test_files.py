"""Whole files with unusual features: what becomes of each, and what each of twelve builds chooses.

The modern ones were judged by the parser, linter and globs of the original, and the others by the
rule book; `expected.jsonl` is not to be refreshed from our own results.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.verdict import OK, judge
from tests.corpus.events import EVENTS, stages_by_event

FILES = Path(__file__).parent / "files"
ROWS = [json.loads(line) for line in (FILES / "expected.jsonl").read_text().splitlines()]


def _expected(row: dict[str, Any]) -> dict[str, list[str]]:
    return {
        event: one["chosen"]
        for one in row["stages"]
        for event in (EVENTS if one["events"] == "all" else one["events"])
    }


@pytest.mark.parametrize("row", ROWS, ids=[row["file"] for row in ROWS])
def test_a_file_is_judged_and_planned_as_by_the_reference(row: dict[str, Any]) -> None:
    found = judge((FILES / row["file"]).read_bytes())
    assert found.verdict == row["verdict"], found.problems
    assert all(one.line and one.column and one.message for one in found.problems)
    if found.verdict == OK:
        assert found.file is not None
        assert stages_by_event(found.file) == _expected(row)


def test_every_file_has_a_row() -> None:
    assert {row["file"] for row in ROWS} == {one.name for one in FILES.glob("*.yml")}


def test_lines_end_and_begin_as_they_were_written() -> None:
    assert b"\r\n" in (FILES / "crlf.yml").read_bytes()
    assert (FILES / "bom.yml").read_bytes().startswith(b"\xef\xbb\xbf")
    assert b"\t" in (FILES / "tab_indent.yml").read_bytes()
