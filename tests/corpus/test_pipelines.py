"""Every file of the collection: our verdict, stages and facts are the reference's.

Where they are not, the difference is one of those that `docs/pipelines/compatibility.md` lists, and
it is told by what the file uses, never by the file's name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.convert.woodpecker import is_workflow
from pipeline.plan import candidates
from pipeline.verdict import OK, PARSE_ERROR, Judged, judge
from tests import corpus
from tests.corpus.events import stages_by_event

FOLDER = corpus.folder("pipelines")
DIFFERENCES = corpus.CHECKOUT / "docs" / "pipelines" / "compatibility.md"


def _rows() -> list[dict[str, Any]]:
    if FOLDER is None:
        return []
    lines = (FOLDER / "manifest.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["file"]]


ROWS = _rows()


def _each(rows: list[dict[str, Any]]) -> pytest.MarkDecorator:
    """A test per row; where the collection is absent one that has nothing to compare."""
    return pytest.mark.parametrize("row", rows or [{}], ids=[one["file"] for one in rows] or ["-"])


@_each(ROWS)
def test_file_is_judged_as_by_the_reference(
    row: dict[str, Any], record_property: pytest.RecordProperty
) -> None:
    if FOLDER is None:
        return
    data = (FOLDER / row["file"]).read_bytes()
    found = judge(data, row["path"])
    difference = _difference(row, data, found)
    if difference is not None:
        assert f"| `{difference}` |" in DIFFERENCES.read_text()
        record_property("agreement", difference)
        return
    assert found.verdict == row["reference"]["verdict"], found.problems
    if found.verdict == OK:
        _check_stages(row["reference"], found)
        _check_facts(row, found)
    else:
        assert all(problem.message and problem.code for problem in found.problems)
    record_property("agreement", "agrees")


def _difference(row: dict[str, Any], data: bytes, found: Judged) -> str | None:
    """The difference on purpose that a file shows, by its construct."""
    if row["reference"]["verdict"] != PARSE_ERROR or found.verdict != OK:
        return None
    if is_workflow(data.decode(), row["path"]):
        return "woodpecker"
    message = row["reference"]["message"]
    if "cannot unmarshal !!seq into yaml.Conditions" in message:
        return "condition-list"
    return "string-for-list" if "into []string" in message and "!!map" not in message else None


def _check_stages(reference: dict[str, Any], found: Judged) -> None:
    assert found.file is not None
    assert stages_by_event(found.file) == reference["stages_by_event"]
    for pipeline, known in zip(candidates(found.file), reference["pipelines"], strict=True):
        assert pipeline.name == known["name"]
        assert (pipeline.type, pipeline.os, pipeline.arch) == (
            known["type"],
            known["os"],
            known["arch"],
        )
        assert list(pipeline.depends_on) == known.get("depends_on", [])
        assert pipeline.concurrency.limit == known.get("limit", 0)
        assert dict(pipeline.node) == known.get("labels", {})


def _check_facts(row: dict[str, Any], found: Judged) -> None:
    file, facts = found.file, row["facts"]
    assert file is not None
    if found.converted:
        return
    pipelines = [one for one in file.pipelines if one.kind == "pipeline"]
    assert len(file.documents) == facts["documents"]
    assert len(pipelines) == facts["pipelines"]
    assert [len(one.steps) for one in pipelines] == facts["steps"]
    assert sum(len(one.services) for one in pipelines) == facts["services"]
    assert len(file.secrets) == facts["secrets"]
    for one, known in zip(pipelines, row["reference"]["pipelines"], strict=False):
        assert [step.name for step in one.steps] == known["steps"]


@_each([row for row in ROWS if row.get("expect")])
def test_fixture_is_as_valid_as_its_repository_says(row: dict[str, Any]) -> None:
    if FOLDER is None:
        return
    found = judge((FOLDER / row["file"]).read_bytes(), row["path"])
    for expected in row["expect"]:
        problems = found.lint(trusted=expected["trusted"] is not False)
        errors = [problem for problem in problems if problem.severity == "error"]
        assert (not errors) == expected["valid"], errors


def test_workflows_are_converted_or_refused_by_construct() -> None:
    for row in ROWS:
        assert FOLDER is not None
        data = (FOLDER / row["file"]).read_bytes()
        found = judge(data, row["path"])
        if row["yaml_ok"] and is_workflow(data.decode(), row["path"]) and found.verdict != OK:
            codes = {problem.code for problem in found.problems}
            assert codes <= {"convert:unsupported", "step:image", "config:missing-steps"}, row


def test_the_collection_is_there_or_said_to_be_absent() -> None:
    assert ROWS or FOLDER is None


def test_a_ci_run_needs_the_collection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv(corpus.SETTING, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="CISERVER_CORPUS"):
        corpus.folder("pipelines")
