"""Parse a pipeline file: its documents, and everything that is wrong with them at once.

Source: reference (pipeline format), section 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.errors import WARNING, PipelineError, Problem
from pipeline.reader import document
from pipeline.resources import (
    ANY,
    DEFAULT_NAME,
    PIPELINE,
    Clone,
    Concurrency,
    Condition,
    Conditions,
    Cron,
    Document,
    Pipeline,
    Platform,
    Position,
    Registry,
    Secret,
    SecretRef,
    Signature,
    Step,
    Template,
    VolumeDef,
    When,
    WorkspaceDef,
)
from pipeline.shapes import Notes
from pipeline.shapes import text as text_
from pipeline.yamltext import (
    MAP,
    MAX_BYTES,
    SCALAR,
    Node,
    Part,
    YamlError,
    collector_paused,
    compose,
    documents,
    pairs,
)

__all__ = [
    "ANY", "DEFAULT_NAME", "PIPELINE", "Clone", "Concurrency", "Condition", "Conditions", "Cron",
    "Document", "File", "Pipeline", "Platform", "Registry", "Secret", "SecretRef", "Signature",
    "Step", "Template", "VolumeDef", "When", "WorkspaceDef", "find", "parse", "point_name",
]  # fmt: skip

DEFAULT_FILE: Final = ".drone.yml"

_STRANGERS: Final = (
    (frozenset({"build", "script", "publish", "deploy"}),
     "the format before 0.5: write its sections as `steps` with `image` and `commands`"),
    (frozenset({"jobs", "on"}), "a GitHub workflow"),
    (frozenset({"stages", "before_script", "include"}), "a GitLab file"),
    (frozenset({"pipelines"}), "a Bitbucket file"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class File:
    """A parsed file. `deferred`: errors that only the stage's own lint reports, as in Drone."""

    documents: tuple[Document, ...]
    file: str = DEFAULT_FILE
    warnings: tuple[Problem, ...] = ()
    deferred: tuple[Problem, ...] = ()

    @property
    def pipelines(self) -> tuple[Pipeline, ...]:
        return tuple(one for one in self.documents if isinstance(one, Pipeline))

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return tuple(one for one in self.documents if isinstance(one, Secret))

    @property
    def template(self) -> Template | None:
        """The template document that is to replace this file, if there is one."""
        return next((one for one in self.documents if isinstance(one, Template)), None)


def parse(text: str, file: str = DEFAULT_FILE) -> File:
    """Parse a modern file (see `pipeline.convert.modernise` for the others).

    Raises: PipelineError with every error of every document.
    """
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        message = f"the file is larger than {MAX_BYTES // 1024} KiB"
        raise PipelineError([Problem("yaml:too-large", message, file=file)])
    notes = Notes(file)
    try:
        parts = documents(text)
    except YamlError as fault:
        raise PipelineError([fault.problem(file)]) from fault
    with collector_paused(len(text)):
        found = tuple(_documents(notes, parts))
    if notes.problems:
        raise PipelineError(_sorted(notes.problems))
    return File(found, file, _sorted(notes.warnings), _sorted(notes.deferred))


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """By place, what was found twice once."""
    return tuple(sorted(dict.fromkeys(problems), key=lambda one: (one.line, one.column)))


def _documents(notes: Notes, parts: list[Part]) -> Iterator[Document]:
    for part in parts:
        beyond: list[Position] = []
        try:
            node = compose(part, beyond)
            found = _document(notes, node, part)
        except YamlError as fault:
            notes.problems.append(fault.problem(notes.file))
            continue
        for line, column in beyond:
            message = "nothing is read from here on, as in Drone: check the indentation"
            notes.warnings.append(
                Problem("config:dropped", message, line, column, WARNING, notes.file)
            )
        if found is not None:
            yield found


def _document(notes: Notes, node: Node | None, part: Part) -> Document | None:
    if node is None or node.null:
        message = "a document without content: remove its `---`, or give it a `kind`"
        problem = Problem("config:missing-kind", message, part.offset + 1, 1, file=notes.file)
        notes.problems.append(problem)
        return None
    if node.kind != MAP:
        notes.wrong(node, "document", "a map with a `kind`")
        return None
    kind = ""
    for key, value in pairs(node):
        if key.value == "kind":
            kind = text_(notes, value, "kind")
        elif key.value in ("version", "type"):
            text_(notes, value, key.value)
    if not kind:
        notes.error("config:missing-kind", node, _kindless(node))
        return None
    return document(notes, node, kind)


def _kindless(node: Node) -> str:
    keys = {key.value for key, _ in pairs(node) if key.kind == SCALAR}
    message = "the document has no `kind`: a pipeline starts with `kind: pipeline`"
    for known, name in _STRANGERS:
        if keys & known:
            return f"{message}; this looks like {name}"
    return message


def point_name(name: str, point: Mapping[str, str]) -> str:
    """The name of the stage for one point of a matrix: `test (GO=1.20, OS=linux)`."""
    return f"{name} ({', '.join(f'{key}={value}' for key, value in point.items())})"


def find(file: File, stage: str, axis: Mapping[str, str] | None = None) -> Pipeline | None:
    """The pipeline of a stage: by its name, or for a point of a matrix by name and values."""
    for pipeline in file.pipelines:
        if not axis and pipeline.name == stage:
            return pipeline
        if axis and any(point_name(pipeline.name, point) == stage for point in pipeline.matrix):
            return pipeline
    return None
