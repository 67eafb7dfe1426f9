"""Woodpecker's workflows to modern documents: where the meaning is the same, else refused by name.

Source: Woodpecker 3 (reference section 11). One workflow is one file; a folder of them is converted
as one set, in the order their `depends_on` asks for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from pipeline.convert import parts
from pipeline.convert.emit import Written, to_yaml
from pipeline.convert.parts import LEFT_OUT, Data, Draft, Volumes, table
from pipeline.convert.woodpecker_steps import Steps, clone
from pipeline.convert.woodpecker_when import When, statuses
from pipeline.document import point_name
from pipeline.errors import Problem
from pipeline.reader import matrix
from pipeline.shapes import boolean, integer, text
from pipeline.yamltext import LIST, MAP, SCALAR, Node, YamlError, compose, documents, pairs

_KIND: Final = re.compile(r"^kind:", re.MULTILINE)
_STEPS: Final = re.compile(r"^steps:", re.MULTILINE)
_CI_IN_BRACES: Final = re.compile(r"(?<!\$)\$\{(CI_[A-Z_]+)")
_CI: Final = re.compile(r"\bCI_[A-Z_]+")
_KEYS: Final = frozenset(
    (
        "steps", "services", "clone", "skip_clone", "when", "depends_on", "runs_on", "labels",
        "matrix", "workspace", "platform", "variables", "concurrency", "version",
    )
)  # fmt: skip

_FOLDER: Final = ".woodpecker"

#: Woodpecker's variables by what substitution puts in their place here.
VARIABLES: Final[Mapping[str, str]] = {
    "CI_COMMIT_PULL_REQUEST": "DRONE_PULL_REQUEST",
    "CI_COMMIT_SOURCE_BRANCH": "DRONE_SOURCE_BRANCH",
    "CI_COMMIT_TAG": "DRONE_TAG",
    "CI_COMMIT_TARGET_BRANCH": "DRONE_TARGET_BRANCH",
    "CI_COMMIT_URL": "DRONE_COMMIT_LINK",
    "CI_PIPELINE_CREATED": "DRONE_BUILD_CREATED",
    "CI_PIPELINE_DEPLOY_TARGET": "DRONE_DEPLOY_TO",
    "CI_PIPELINE_EVENT": "DRONE_BUILD_EVENT",
    "CI_PIPELINE_FORGE_URL": "DRONE_COMMIT_LINK",
    "CI_PIPELINE_NUMBER": "DRONE_BUILD_NUMBER",
    "CI_PIPELINE_PARENT": "DRONE_BUILD_PARENT",
    "CI_PIPELINE_URL": "DRONE_BUILD_LINK",
    "CI_REPO_CLONE_SSH_URL": "DRONE_GIT_SSH_URL",
    "CI_REPO_CLONE_URL": "DRONE_GIT_HTTP_URL",
    "CI_REPO_DEFAULT_BRANCH": "DRONE_REPO_BRANCH",
    "CI_REPO_NAME": "DRONE_REPO_NAME",
    "CI_REPO_OWNER": "DRONE_REPO_OWNER",
    "CI_REPO_URL": "DRONE_REPO_LINK",
    "CI_SYSTEM_HOST": "DRONE_SYSTEM_HOST",
    "CI_WORKFLOW_NAME": "DRONE_STAGE_NAME",
    "CI_WORKFLOW_NUMBER": "DRONE_STAGE_NUMBER",
}
#: What Woodpecker's git plugin reads.
_GIT: Final = (
    "CI_REPO_CLONE_URL", "CI_REPO_DEFAULT_BRANCH", "CI_PIPELINE_EVENT", "CI_COMMIT_TAG",
)  # fmt: skip


def is_workflow(source: str, file: str) -> bool:
    """Whether a file is a workflow: no `kind`, and `steps:` at the top or the place of one."""
    if _KIND.search(source) is not None:
        return False
    if _STEPS.search(source) is None and _FOLDER not in PurePosixPath(file).parts[-2:]:
        return False
    try:
        return not any(_has_kind(compose(part)) for part in documents(source))
    except YamlError:
        return True


def _has_kind(root: Node | None) -> bool:
    """Whether a document says its kind, as only a modern one does, however it is written."""
    if root is None or root.kind != MAP:
        return False
    return any(key.kind == SCALAR and key.value == "kind" for key, _ in pairs(root))


def convert(source: str, file: str) -> Written:
    """The modern text of one workflow; what it waits for is in other files, and left out.

    Raises: PipelineError.
    """
    draft = Draft(file)
    workflow = _read(draft, source, file)
    draft.raise_problems()
    if workflow.depends_on:
        names = ", ".join(workflow.depends_on)
        draft.drop(f"`depends_on` ({names}): convert the whole folder to keep it")
    output = workflow.documents(())
    draft.raise_problems()
    return Written(to_yaml(output, _comments(draft)), output)


def combine(sources: Mapping[str, str]) -> Written:
    """The modern text of a folder of workflows, by path.

    A workflow runs after those it depends on; a dependency that does not exist is an error unless
    it is optional.

    Raises: PipelineError with the problems of every file.
    """
    drafts = {file: Draft(file) for file in sources}
    workflows = [_read(drafts[file], sources[file], file) for file in sorted(sources)]
    names = {workflow.name for workflow in workflows}
    output: list[Data] = []
    files: list[str] = []
    for workflow in _ordered(workflows):
        output += workflow.documents(_known(workflow, names))
        files += [workflow.draft.file] * (len(output) - len(files))
    found = [one for draft in drafts.values() for one in draft.problems]
    collected = Draft("")
    collected.problems += found
    collected.raise_problems()
    comments = [f"{file}: {one}" for file, draft in drafts.items() for one in _comments(draft)[1:]]
    head = ["Converted from Woodpecker's workflows.", *comments]
    return Written(to_yaml(output, head), output, files)


def _comments(draft: Draft) -> list[str]:
    return [
        "Converted from Woodpecker's format.",
        *(f"{LEFT_OUT}{one}" for one in draft.dropped),
    ]


def _known(workflow: Workflow, names: set[str]) -> tuple[str, ...]:
    for name, optional in workflow.depends_on.items():
        if name not in names and not optional:
            message = f"`depends_on` names `{name}`, but no workflow is called so"
            file = workflow.draft.file
            workflow.draft.problems.append(Problem("manifest:dependency", message, file=file))
    return tuple(name for name in workflow.depends_on if name in names)


def _ordered(workflows: Sequence[Workflow]) -> list[Workflow]:
    """Each after those it depends on; what is left in a cycle keeps its place, for the lint."""
    done: dict[str, Workflow] = {}
    waiting = list(workflows)
    names = {workflow.name for workflow in workflows}
    while waiting:
        ready = [
            one for one in waiting if all(d in done or d not in names for d in one.depends_on)
        ] or waiting
        done |= {one.name: one for one in ready}
        waiting = [one for one in waiting if one.name not in done]
    return list(done.values())


def _read(draft: Draft, source: str, file: str) -> Workflow:
    top: dict[str, Node] = {}
    try:
        roots = [node for part in documents(source) if (node := compose(part)) is not None]
        if len(roots) > 1:
            draft.refuse(roots[1], "---", "write one workflow per file")
        root = roots[0] if roots else None
        draft.check_size(root)
        top = table(draft, root, "file")
        if "steps" not in top and "compile" not in top and not draft.problems:
            message = "a workflow needs `steps`"
            draft.problems.append(Problem("config:missing-steps", message, 1, 1, file=draft.file))
    except YamlError as fault:
        draft.problems.append(fault.problem(file))
    return Workflow(draft, top, workflow_name(file))


def workflow_name(file: str) -> str:
    """The name of a workflow: its file's, without dots at its ends."""
    name = PurePosixPath(file).name.lstrip(".")
    return name.removesuffix(".yaml").removesuffix(".yml") or "default"


class Workflow:
    """One workflow, read from the map of its file."""

    def __init__(self, draft: Draft, top: Mapping[str, Node], name: str) -> None:
        self.draft, self.top, self.name = draft, top, name
        self.depends_on = self._depends_on()
        if "compile" in top:
            draft.refuse(top["compile"], "compile", "write a `.drone.jsonnet` or `.drone.star`")
        for key in top:
            if key not in _KEYS and not key.startswith("x-"):
                draft.drop(f"`{key}`")

    def documents(self, depends_on: Sequence[str]) -> list[Data]:
        """Its pipeline, or one per point of a matrix that conditions tell apart."""
        try:
            return self._documents(depends_on)
        except YamlError as fault:
            self.draft.problems.append(fault.problem(self.draft.file))
            return []

    def _documents(self, depends_on: Sequence[str]) -> list[Data]:
        points = matrix(self.draft, self.top["matrix"], "matrix") if "matrix" in self.top else ()
        if not points or not self._split():
            return [self._pipeline(self.name, {}, points, depends_on)]
        self.draft.check_size(self.top.get("steps"), len(points))
        return [
            self._pipeline(point_name(self.name, point), point, (), depends_on) for point in points
        ]

    def _split(self) -> bool:
        """Whether a condition asks for values of the matrix."""
        return (
            _has_key(self.top.get("steps"), "matrix")
            or _has_key(self.top.get("services"), "matrix")
            or _has_key(self.top.get("when"), "matrix")
        )

    def _pipeline(
        self,
        name: str,
        point: Mapping[str, str],
        points: Sequence[Mapping[str, str]],
        depends_on: Sequence[str],
    ) -> Data:
        result: Data = {"kind": "pipeline", "type": "docker", "name": name}
        platform, node = self._placement()
        if platform:
            os, _, arch = platform.partition("/")
            result["platform"] = {"os": os, "arch": arch or "amd64"}
        result["node"] = node
        result["matrix"] = {"include": [dict(one) for one in points]} if points else {}
        when = When(self.draft, platform or "linux/amd64", point)
        result["trigger"] = self._trigger(when)
        result["depends_on"] = list(depends_on)
        result["concurrency"] = self._concurrency()
        if "workspace" in self.top:
            result["workspace"] = self.top["workspace"]
        result |= self._content(when)
        filled = parts.fill(_compact(result), parts.filler(point)) if point else _compact(result)
        return _with_variables(filled, point)

    def _content(self, when: When) -> Data:
        volumes = Volumes()
        reader = Steps(self.draft, when, volumes)
        cloning = clone(self.draft, self.top, reader)
        services = reader.read(self.top.get("services"), "services")
        steps = reader.read(self.top.get("steps"), "steps")
        reader.order(steps, services, cloning)
        found: Data = {"clone": cloning.options, "services": _data(services)}
        found["steps"] = _data(cloning.steps) + _data(steps)
        found["volumes"] = volumes.declared()
        if cloning.steps:
            found["environment"] = {key: f"${{{VARIABLES[key]}}}" for key in _GIT}
        return found

    def _placement(self) -> tuple[str, Data]:
        """The platform and the other labels."""
        draft = self.draft
        labels: Data = dict(table(draft, self.top.get("labels"), "labels"))
        platform = labels.pop("platform", None) or self.top.get("platform")
        return text(draft, platform, "platform") if platform is not None else "", labels

    def _trigger(self, when: When) -> Data | list[Data]:
        found = when.read(self.top.get("when"), "when")
        if found is None:
            return {"event": {"exclude": ["**"]}}
        if "runs_on" in self.top:
            wanted = statuses(self.draft, self.top["runs_on"])
            found = [one | {"status": wanted} for one in found or [{}]]
        return found[0] if len(found) == 1 else found

    def _concurrency(self) -> Data:
        node = self.top.get("concurrency")
        if node is None:
            return {}
        if node.kind == SCALAR:
            return {"limit": integer(self.draft, node, "concurrency")}
        values = table(self.draft, node, "concurrency")
        if "limit" not in values:
            self.draft.refuse(node, "concurrency.group", "`concurrency` needs a `limit`")
            return {}
        if "group" in values:
            self.draft.drop("`concurrency.group`: the limit counts builds of this workflow")
        return {"limit": integer(self.draft, values["limit"], "concurrency.limit")}

    def _depends_on(self) -> dict[str, bool]:
        """Names of other workflows, and whether each is optional."""
        node = self.top.get("depends_on")
        if node is None:
            return {}
        found: dict[str, bool] = {}
        for item in node.value if node.kind == LIST else [node]:
            if item.kind == MAP:
                values = table(self.draft, item, "depends_on")
                optional = values.get("optional")
                if "name" not in values:
                    self.draft.refuse(item, "depends_on", "an entry needs the `name` of a workflow")
                    continue
                found[text(self.draft, values["name"], "depends_on")] = (
                    optional is not None and boolean(self.draft, optional, "depends_on.optional")
                )
            else:
                found[text(self.draft, item, "depends_on")] = False
        return found


def _has_key(node: Node | None, key: str) -> bool:
    """Whether a condition below a node uses a key."""
    if node is None or node.kind == SCALAR:
        return False
    if node.kind == LIST:
        return any(_has_key(item, key) for item in node.value)
    return any(name.value == key or _has_key(value, key) for name, value in node.value)


def _data(steps: Sequence[Data]) -> list[Data]:
    return [_compact(step) for step in steps]


def _compact(data: Data) -> Data:
    return {key: value for key, value in data.items() if value not in ({}, [], None, "")}


def _with_variables(pipeline: Data, point: Mapping[str, str]) -> Data:
    """Give steps the variables they use under Woodpecker's names."""
    used: set[str] = set()

    def rename(value: str) -> str:
        used.update(_CI.findall(value))
        return _CI_IN_BRACES.sub(lambda match: "${" + VARIABLES.get(match[1], match[1]), value)

    given = pipeline.pop("environment", {})
    trigger = pipeline.pop("trigger", None)
    renamed: Data = parts.fill(pipeline, rename)
    if trigger is not None:
        renamed["trigger"] = trigger
    environment = dict(point) | given
    environment |= {key: f"${{{VARIABLES[key]}}}" for key in sorted(used & VARIABLES.keys())}
    if "CI_WORKSPACE" in used and "workspace" not in pipeline:
        environment["CI_WORKSPACE"] = "/drone/src"
    if environment:
        head = {key: renamed.pop(key) for key in ("kind", "type", "name")}
        renamed = head | {"environment": environment} | renamed
    return renamed
