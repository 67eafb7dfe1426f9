"""The format before 1.0: a `pipeline:` map, `branches:`, `matrix:`, to modern documents.

A matrix becomes one pipeline per point, `matrix-1` and on, as in Drone 2; more than Drone's own
conversion we keep `group` (as `depends_on`), `allow_failure`, limits and the values of the matrix
as environment. Source: reference section 1 and the notes on 0.8; only the first document counts.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pipeline.convert import parts
from pipeline.convert.emit import Written, to_yaml
from pipeline.convert.parts import (
    LEFT_OUT,
    Data,
    Draft,
    Volumes,
    condition,
    entries,
    strings,
    table,
)
from pipeline.shapes import boolean, text, text_map, texts
from pipeline.yamltext import LIST, MAP, SCALAR, Node, YamlError, compose, documents

#: Drone makes no more stages of the axes of a matrix.
MAX_PRODUCT: Final = 27

_PULLS: Final = ("refs/pull/**", "refs/pull-requests/**", "refs/merge-requests/**")
_MATCH: Final = re.compile(r"^pipeline:(\s+)?$", re.MULTILINE)
_LISTS: Final = ("command", "commands", "entrypoint", "dns", "dns_search", "extra_hosts")
_SAME: Final = ("image", "shm_size", "mem_limit", "memswap_limit", "network_mode", "user")
_FLAGS: Final[Mapping[str, Data]] = {
    "pull": {"pull": "always"},
    "allow_failure": {"failure": "ignore"},
}
_DROPPED: Final = frozenset(
    ("devices", "tmpfs", "shell", "ports", "labels", "networks", "ulimits", "isolation")
)
_CONDITIONS: Final = {
    "ref": "ref", "repo": "repo", "instance": "instance", "environment": "target",
    "event": "event", "branch": "branch", "status": "status",
}  # fmt: skip


def is_legacy(source: str) -> bool:
    """Whether a file is of the old format: it has a line `pipeline:`."""
    return _MATCH.search(source) is not None


def convert(source: str, file: str) -> Written:
    """The modern text of an old file.

    Raises: PipelineError.
    """
    draft = Draft(file)
    output: list[Data] = []
    try:
        roots = iter(documents(source))
        root = next((node for part in roots if (node := compose(part)) is not None), None)
        output = _documents(draft, root)
        if next(roots, None) is not None:
            draft.drop("all documents but the first")
    except YamlError as fault:
        draft.problems.append(fault.problem(file))
    draft.raise_problems()
    return Written(to_yaml(output, _comments(draft)), output)


def _comments(draft: Draft) -> list[str]:
    return ["Converted from the format before 1.0.", *(f"{LEFT_OUT}{one}" for one in draft.dropped)]


def _documents(draft: Draft, root: Node | None) -> list[Data]:
    top = table(draft, root, "file")
    points = _points(draft, top.get("matrix"))
    draft.check_size(root, len(points))
    pipelines = [
        _pipeline(draft, top, f"matrix-{number}", point)
        for number, point in enumerate(points, start=1)
    ] or [_pipeline(draft, top, "default", {})]
    return pipelines + _secrets(draft, top.get("secrets"))


def _pipeline(draft: Draft, top: Mapping[str, Node], name: str, point: Mapping[str, str]) -> Data:
    volumes = Volumes()
    result: Data = {"kind": "pipeline", "type": "docker", "name": name}
    if "workspace" in top:
        workspace = table(draft, top["workspace"], "workspace")
        result["workspace"] = {k: v for k, v in workspace.items() if (k, v.value) != ("path", ".")}
    clone, _ = _containers(draft, top.get("clone"), "clone", point, volumes)
    services, _ = _containers(draft, top.get("services"), "services", point, volumes)
    steps, groups = _containers(draft, top.get("pipeline"), "pipeline", point, volumes)
    if clone or any(_clones(step) for step in steps):
        result["clone"] = {"disable": True}
    if point:
        result["environment"] = dict(point)
    if services:
        result["services"] = services
    steps, groups = clone + steps, [""] * len(clone) + groups
    cloning = () if "clone" in result else ("clone",)
    parts.rename(steps, [*cloning, *(service["name"] for service in services)])
    parts.order_groups(steps, services, groups)
    result["steps"] = steps
    if volumes.names:
        result["volumes"] = volumes.declared()
    if "branches" in top:
        result["trigger"] = _trigger(draft, top["branches"], steps)
    return parts.fill(result, parts.filler(point)) if point else result


def _clones(step: Data) -> bool:
    """Whether a step of the pipeline is a clone step of its own."""
    image = step.get("image")
    plugin = str(image.value) if isinstance(image, Node) else ""
    return step["name"] == "clone" and plugin.partition(":")[0].endswith("/git")


def _trigger(draft: Draft, node: Node, steps: Sequence[Data]) -> Data:
    """Branches to include never held back pull requests, nor tags that a step asks for."""
    branches = _condition(draft, node, "branches")
    if isinstance(branches, dict) and set(branches) != {"include"}:
        return {"branch": branches}
    names = branches["include"] if isinstance(branches, dict) else branches
    refs = [*_PULLS, *(f"refs/heads/{name}" for name in names)]
    if any("tag" in _events(step) for step in steps):
        refs.append("refs/tags/**")
    return {"ref": refs} if names else {}


def _events(step: Data) -> Sequence[str]:
    events = step.get("when", {}).get("event", ())
    included: Sequence[str] = events.get("include", ()) if isinstance(events, dict) else events
    return included


def _containers(
    draft: Draft,
    node: Node | None,
    where: str,
    point: Mapping[str, str],
    volumes: Volumes,
) -> tuple[list[Data], list[str]]:
    """The steps of a map, or of a list of one-key maps, and the group of each."""
    found: list[Data] = []
    groups: list[str] = []
    for source in _sources(node):
        for name, value in entries(draft, source, where):
            values = table(draft, value, f"{where}.{name}")
            values.pop("name", None)
            if not parts.in_matrix(draft, values.get("when"), point):
                continue
            group = values.pop("group", None)
            groups.append(text(draft, group, "group") if group is not None else "")
            found.append(_container(draft, name, values, volumes))
    return found, groups


def _sources(node: Node | None) -> list[Node | None]:
    """The maps of named steps: one, or those of a list, whose items may be steps themselves."""
    if node is None or node.kind != LIST:
        return [node]
    return [_named(item, index) for index, item in enumerate(node.value)]


def _named(item: Node, index: int) -> Node:
    if item.kind != MAP or all(value.kind == MAP for _, value in item.value):
        return item
    name = next((value for key, value in item.value if key.value == "name"), None)
    if name is None or name.kind != SCALAR:
        name = Node(SCALAR, f"step-{index + 1}", item.line, item.column)
    return Node(MAP, [(name, item)], item.line, item.column)


def _container(draft: Draft, name: str, values: dict[str, Node], volumes: Volumes) -> Data:
    """One step. What is not a key of its own was a setting of a plugin."""
    step: Data = {"name": name, "pull": "if-not-exists"}
    settings: Data = {}
    _check_types(draft, name, values)
    environment = _environment(draft, name, values)
    for key, node in values.items():
        where = f"{name}.{key}"
        if key in _SAME:
            step[key] = node
        elif key in _LISTS:
            step[key] = strings(draft, node, where)
        elif key in ("detach", "privileged"):
            step |= {key: node} if boolean(draft, node, where) else {}
        elif key in _FLAGS:
            step |= _FLAGS[key] if boolean(draft, node, where) else {}
        elif key == "volumes":
            step["volumes"] = _mounts(draft, node, where, volumes)
        elif key == "when":
            step["when"] = _when(draft, node, where)
        elif key in _DROPPED:
            draft.drop(f"`{key}` of step `{name}`")
        else:
            settings[key] = node
    step |= {"environment": environment, "settings": settings}
    return {key: value for key, value in step.items() if value or key == "name"}


def _check_types(draft: Draft, name: str, values: Mapping[str, Node]) -> None:
    """Note values that Drone's conversion refuses."""
    for key in ("image", "shell"):
        if key in values:
            text(draft, values[key], f"{name}.{key}")
    for key in ("devices", "extra_hosts", "tmpfs", "volumes"):
        if key in values:
            texts(draft, values[key], f"{name}.{key}")
    if "environment" in values and values["environment"].kind == MAP:
        text_map(draft, values["environment"], f"{name}.environment")


def _environment(draft: Draft, name: str, values: dict[str, Node]) -> Data:
    """The environment of a step with its secrets; takes both keys out of `values`."""
    found: Data = {}
    if (node := values.pop("environment", None)) is not None:
        found |= parts.environment(draft, node, f"{name}.environment")
    if (node := values.pop("secrets", None)) is not None:
        kinds = {item.kind for item in node.value} if node.kind == LIST else {node.kind}
        if node.kind != LIST or len(kinds) > 1:
            draft.wrong(node, f"{name}.secrets", "a list of names, or one of maps")
        found |= parts.secrets(draft, node, f"{name}.secrets")
    return found


def _mounts(draft: Draft, node: Node, where: str, volumes: Volumes) -> list[Data]:
    found = [volumes.mount(item) for item in strings(draft, node, where)]
    return [one for one in found if one is not None]


def _when(draft: Draft, node: Node, where: str) -> Data:
    result: Data = {}
    for key, value in table(draft, node, where).items():
        new = _CONDITIONS.get(key)
        if new is not None:
            result[new] = _condition(draft, value, f"{where}.{key}")
        elif key != "matrix":
            draft.drop(f"`{where}.{key}`")
    return result


def _condition(draft: Draft, node: Node, where: str) -> Any:
    """A condition; one of a wrong shape is left out, as by Drone."""
    inner = Draft(draft.file)
    found = condition(inner, node, where)
    if inner.problems:
        draft.drop(f"`{where}`: it must be text or a list of it")
        return []
    return found


def _points(draft: Draft, node: Node | None) -> list[dict[str, str]]:
    """The points of a matrix: those of `include`, else the product of the axes in file order."""
    if node is None or node.null:
        return []
    values = table(draft, node, "matrix")
    include = values.get("include")
    if include is not None and include.kind == LIST and any(i.kind == MAP for i in include.value):
        return [_point(draft, item) for item in include.value]
    axes = {key: texts(draft, value, f"matrix.{key}") for key, value in values.items()}
    product = itertools.product(*axes.values()) if axes else iter(())
    points = [dict(zip(axes, one, strict=True)) for one in itertools.islice(product, MAX_PRODUCT)]
    if next(product, None) is not None:
        draft.drop(
            f"points of the matrix after the first {MAX_PRODUCT}, as by Drone: use `include`"
        )
    return points


def _point(draft: Draft, node: Node) -> dict[str, str]:
    return {key: text(draft, value, key) for key, value in table(draft, node, "matrix").items()}


def _secrets(draft: Draft, node: Node | None) -> list[Data]:
    """External secrets: `path`, `vault`, or the options of the driver vault."""
    found = []
    for name, value in table(draft, node, "secrets").items():
        values = table(draft, value, f"secrets.{name}")
        options = table(draft, values.get("driver_opts"), f"secrets.{name}.driver_opts")
        path = options.get("path") or values.get("path") or values.get("vault")
        if path is None:
            draft.drop(f"secret `{name}`: it has no path")
            continue
        get: Data = {"path": path}
        if "key" in options:
            get["name"] = options["key"]
        found.append({"kind": "secret", "name": name, "get": get})
    return found
