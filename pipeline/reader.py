"""YAML nodes to resources: which keys there are, and what type each has.

The server of the original parses every pipeline type with one struct, so a wrong type is an error
of the build. Some keys are known to the runner only, or to us: an error there is one of the stage
(`Notes.deferred`). Source: reference sections 1 and 2.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pipeline.resources import (
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
from pipeline.shapes import (
    Notes,
    Reader,
    Table,
    Whole,
    boolean,
    check_key,
    duration,
    each,
    fields,
    integer,
    items,
    size,
    text,
    text_map,
    texts,
    texts_or_one,
    unknown,
)
from pipeline.spec import Mount, Retry
from pipeline.yamltext import LIST, MAP, MAX_EXPANDED, SCALAR, Node, pairs, untyped

MAX_POINTS: Final = 100
MAX_GLOBS: Final = 500
MAX_STEPS: Final = 20_000
KINDS: Final = ("pipeline", "secret", "signature", "cron", "registry", "template")

#: Keys that other runners read and that mean nothing here.
_OTHER_PIPELINE_KEYS: Final = frozenset(
    [
        "token",
        "server",
        "pool",
        "metadata",
        "node_selector",
        "node_name",
        "tolerations",
        "host_aliases",
        "dns_config",
        "service_account_name",
        "pod_spec",
        "user",
        "group",
        "resources",
    ]
)
_OTHER_STEP_KEYS: Final = frozenset(["build", "push", "ports", "resources", "shell"])
_CONDITION_KEYS: Final = frozenset(Conditions.__slots__)
_OUTCOMES: Final = ("failure", "error")


def document(notes: Notes, node: Node, kind: str) -> Document:
    """Read a document of a kind."""
    if kind == "secret":
        return _secret(notes, node)
    if kind == "signature":
        return Signature(**fields(notes, node, "", _SIGNATURE, also=_HEAD), line=node.line)
    if kind == "cron":
        return Cron(fields(notes, node, "", _CRON, also=_HEAD).get("name", ""), node.line)
    if kind == "registry":
        return Registry(fields(notes, node, "", _REGISTRY, also=_HEAD).get("name", ""), node.line)
    if kind == "template":
        return Template(**fields(notes, node, "", _TEMPLATE, also=_HEAD), line=node.line)
    return _pipeline(notes, node, kind)


def _pipeline(notes: Notes, node: Node, kind: str) -> Pipeline:
    at: dict[str, Position] = {}
    if kind != "pipeline":
        unknown_kind = next((v for k, v in pairs(node) if k.value == "kind"), node)
        message = f"unknown kind `{kind[:100]}` is taken for a pipeline; kinds: {', '.join(KINDS)}"
        notes.warn("config:unknown-kind", unknown_kind, message)
    values = fields(notes, node, "", _PIPELINE, at, _HEAD | _OTHER_PIPELINE_KEYS)
    values = {key: value for key, value in values.items() if value != "" and value is not None}
    _locate(node, at)
    if len(values.get("matrix", ())) * node.weight > MAX_EXPANDED:
        message = f"the points of the matrix make more than {MAX_EXPANDED} values of this pipeline"
        notes.error("config:matrix-too-large", node, message)
    return Pipeline(**values, kind=kind, line=node.line, column=node.column, at=at)


def _locate(node: Node, at: dict[str, Position]) -> None:
    """Add the places of the items of `depends_on`."""
    for key, value in pairs(node):
        if key.value == "depends_on" and value.kind == LIST:
            for item in value.value:
                at[f"depends_on:{item.value}"] = (item.line, item.column)


def _secret(notes: Notes, node: Node) -> Secret:
    values = fields(notes, node, "", _SECRET, also=_HEAD)
    got = values.pop("get", {})
    return Secret(**values, path=got.get("path", ""), key=got.get("key", ""), line=node.line)


def _step(notes: Notes, node: Node, where: str) -> Step:
    if node.null:
        return Step(missing=True, line=node.line, column=node.column)
    at: dict[str, Position] = {}
    values = fields(notes, node, where, _STEP, at)
    if "depends_on" in at and node.kind == MAP:
        _locate(node, at)
    for key in _OTHER_STEP_KEYS - {"shell"}:
        values.pop(key, None)
    return Step(**values, line=node.line, column=node.column, at=at)


def _steps(notes: Notes, node: Node, where: str) -> tuple[Step, ...]:
    if node.kind == LIST and len(node.value) > MAX_STEPS:
        notes.error("config:too-many", node, f"`{where}` has more than {MAX_STEPS} entries")
        return ()
    return items(notes, node, where, _step)


# Conditions


def when(notes: Notes, node: Node, where: str) -> When:
    """Conditions: a map as in Drone, or a list of maps of which one must match (extension)."""
    if node.kind == LIST:
        return tuple(
            conditions(notes, item, f"{where}[{i}]")
            for i, item in enumerate(node.value)
            if not item.null
        )
    found = conditions(notes, node, where)
    return () if found == Conditions() else (found,)


def conditions(notes: Notes, node: Node, where: str) -> Conditions:
    """One map of conditions."""
    return Conditions(**fields(notes, node, where, _CONDITIONS))


def _condition(notes: Notes, node: Node, where: str) -> Condition:
    """A scalar or list to include, or a map of lists; other shapes are dropped, as in Drone."""
    if node.kind == SCALAR:
        return Condition(include=(str(node.value),))
    if node.kind == LIST:
        return Condition(include=_globs(notes, node, where))
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    for key, value in pairs(node):
        if key.value == "include":
            include = _globs(notes, value, f"{where}.include")
        elif key.value == "exclude":
            exclude = _globs(notes, value, f"{where}.exclude")
        elif key.kind == SCALAR:
            unknown(notes, key, where, ("include", "exclude"))
    return Condition(include, exclude)


def _globs(notes: Notes, node: Node, where: str) -> tuple[str, ...]:
    if node.null:
        return ()
    if node.kind != LIST:
        notes.warn("config:dropped", node, f"`{where}` must be a list: this is dropped")
        return ()
    if len(node.value) > MAX_GLOBS:
        notes.error("config:too-many", node, f"`{where}` has more than {MAX_GLOBS} entries")
        return ()
    for item in node.value:
        if item.kind != SCALAR:
            notes.warn("config:dropped", item, f"an item of `{where}` must be text: it is dropped")
    return tuple("" if i.null else str(i.value) for i in node.value if i.kind == SCALAR)


# Values of steps


def _environment(notes: Notes, node: Node, where: str) -> dict[str, str | SecretRef]:
    """A step's environment; null is not set."""
    found = each(notes, node, where, _variable)
    return {key: value for key, value in found.items() if value is not None}


def _variable(notes: Notes, node: Node, where: str) -> str | SecretRef | None:
    if node.null:
        return None
    if node.kind == SCALAR:
        return str(node.value)
    values = fields(notes, node, where, _VARIABLE)
    if values.get("secret"):
        return SecretRef(values["secret"])
    return str(values.get("value", ""))


def _settings(notes: Notes, node: Node, where: str) -> dict[str, Any]:
    return each(notes, node, where, _setting)


def _setting(notes: Notes, node: Node, where: str) -> Any:
    if node.kind == MAP:
        found = ""
        for key, value in pairs(node):
            if key.value == "from_secret":
                found = str(value.value) if value.kind == SCALAR and not value.null else ""
        if found:
            return SecretRef(found)
    return untyped(node)


def _mounts(notes: Notes, node: Node, where: str) -> tuple[Mount, ...]:
    return items(notes, node, where, _mount)


def _mount(notes: Notes, node: Node, where: str) -> Mount:
    if node.null:
        return Mount("", "")
    values = fields(notes, node, where, _MOUNT)
    return Mount(values.get("name", ""), values.get("path", ""))


def _volumes(notes: Notes, node: Node, where: str) -> tuple[VolumeDef, ...]:
    return items(notes, node, where, _volume)


def _volume(notes: Notes, node: Node, where: str) -> VolumeDef:
    place: dict[str, Any] = {"line": node.line, "column": node.column}
    if node.null:
        return VolumeDef(**place)
    values = fields(notes, node, where, _VOLUME, also=("claim", "config_map", "image", "secret"))
    name = values.get("name", "")
    if "host" in values:
        return VolumeDef(name, "host", values["host"].get("host_path", ""), **place)
    if "temp" in values:
        return VolumeDef(name, "temp", **values["temp"], **place)
    return VolumeDef(name, **place)


def _port(notes: Notes, node: Node, where: str) -> None:
    if node.kind == MAP:
        fields(notes, node, where, _PORT)
    elif not node.null:
        integer(notes, node, where)


def _text_or(table: Table) -> Reader:
    """Text, or a map of the table."""

    def read(notes: Notes, node: Node, where: str) -> None:
        if node.kind == SCALAR:
            return
        fields(notes, node, where, table)

    return read


def _number(notes: Notes, node: Node, where: str) -> None:
    value = untyped(node) if node.kind == SCALAR else ""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        notes.wrong(node, where, "a number, without quotes")


def _of(table: Table) -> Reader:
    """A map of the table, as a dict of field values."""
    return lambda notes, node, where: fields(notes, node, where, table)


def _struct(cls: type, table: Table) -> Reader:
    return lambda notes, node, where: cls(**fields(notes, node, where, table))


def _list_of(reader: Reader) -> Reader:
    return lambda notes, node, where: items(notes, node, where, reader)


def _deferred(reader: Reader) -> Reader:
    """Errors of this value are the stage's, not the build's."""

    def read(notes: Notes, node: Node, where: str) -> Any:
        inner = Notes(notes.file)
        value = reader(inner, node, where)
        notes.deferred.extend(inner.problems)
        notes.warnings.extend(inner.warnings)
        return value

    return read


# Extensions


def _retry(notes: Notes, node: Node, where: str) -> Retry:
    """A count, or `{count, on, backoff}`."""
    if node.kind == SCALAR:
        return Retry(count=_count(notes, node, where))
    values = fields(notes, node, where, _RETRY)
    return Retry(**values)


def _timeout(notes: Notes, node: Node, where: str) -> float:
    """A duration. A bare number may be of another system's file: Drone passes it over, and so do
    we."""
    value = untyped(node) if node.kind == SCALAR else None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        message = f"`{where}` has no effect without a unit, as in 90s, 10m or 1h30m"
        notes.warn("config:dropped", node, message)
        return 0.0
    return duration(notes, node, where)


def _count(notes: Notes, node: Node, where: str) -> int:
    count = integer(notes, node, where)
    if not 0 <= count <= 10:
        notes.error("config:out-of-range", node, f"`{where}` must be from 0 to 10, not {count}")
        return 0
    return count


def _outcomes(notes: Notes, node: Node, where: str) -> tuple[str, ...]:
    found = texts_or_one(notes, node, where)
    for outcome in found:
        if outcome not in _OUTCOMES:
            message = f"`{where}` knows {' and '.join(_OUTCOMES)}, not `{outcome}`"
            notes.error("config:out-of-range", node, message)
    return found


def matrix(notes: Notes, node: Node, where: str) -> tuple[Mapping[str, str], ...]:
    """The points of a matrix: the product of its axes in file order, or those of `include`."""
    if node.kind != MAP:
        notes.wrong(node, where, "a map of axes, or `include` with a list of points")
        return ()
    axes: dict[str, tuple[str, ...]] = {}
    points: list[dict[str, str]] = []
    for key, value in pairs(node):
        if not check_key(notes, key):
            continue
        if key.value == "include":
            points += items(notes, value, f"{where}.include", text_map)
        else:
            axes[key.value] = texts(notes, value, f"{where}.{key.value}")
    total = len(points)
    if axes:
        total += points_of(axes)
    if total > MAX_POINTS:
        message = f"the matrix has more than {MAX_POINTS} points"
        notes.error("config:matrix-too-large", node, message)
        return ()
    if axes:
        product_points = itertools.product(*axes.values())
        points = [dict(zip(axes, values, strict=True)) for values in product_points] + points
    return tuple(points)


def points_of(axes: Mapping[str, Sequence[str]]) -> int:
    """How many points the product of axes has; beyond the limit it is no longer exact."""
    total = 1
    for values in axes.values():
        total = min(total * len(values), MAX_POINTS + 1)
    return total


_HEAD: Final = frozenset(("version", "kind", "type", "name"))
_SIGNATURE: Final[Table] = {"hmac": ("hmac", text)}
_CRON: Final[Table] = {
    "name": ("name", text),
    "spec": (
        "spec",
        _of(
            {
                "schedule": ("schedule", text),
                "branch": ("branch", text),
                "deployment": ("deployment", _of({"target": ("target", text)})),
            }
        ),
    ),
}
_REGISTRY: Final[Table] = {"name": ("name", text), "data": ("data", text_map)}
_TEMPLATE: Final[Table] = {
    "load": ("load", text),
    "data": ("data", lambda notes, node, where: untyped(node) if node.kind == MAP else {}),
}
_SECRET: Final[Table] = {
    "name": ("name", text),
    "data": ("data", text),
    "get": ("get", _of({"path": ("path", text), "name": ("key", text), "key": ("unused", text)})),
}
_CONDITIONS: Final[Table] = {key: (key, Whole(_condition)) for key in sorted(_CONDITION_KEYS)}
_VARIABLE: Final[Table] = {"value": ("value", text), "from_secret": ("secret", text)}
_MOUNT: Final[Table] = {"name": ("name", text), "path": ("path", text)}
_VOLUME: Final[Table] = {
    "name": ("name", text),
    "temp": (
        "temp",
        _of({"medium": ("medium", text), "size_limit": ("size_limit_bytes", size)}),
    ),
    "host": ("host", _of({"path": ("host_path", text)})),
}
_PORT: Final[Table] = {
    "port": ("port", integer),
    "host": ("host", integer),
    "protocol": ("protocol", text),
}
_BUILD: Final[Table] = {
    "args": ("args", text_map),
    "cache_from": ("cache_from", texts),
    "context": ("context", text),
    "dockerfile": ("dockerfile", text),
    "image": ("image", text),
    "labels": ("labels", text_map),
}
_AMOUNTS: Final = _of({"cpu": ("cpu", _number), "memory": ("memory", size)})
_RESOURCES: Final[Table] = {"limits": ("limits", _AMOUNTS), "requests": ("requests", _AMOUNTS)}
_RETRY: Final[Table] = {
    "count": ("count", _count),
    "on": ("on", _outcomes),
    "backoff": ("backoff_s", duration),
}
_STEP: Final[Table] = {
    "name": ("name", text),
    "image": ("image", text),
    "commands": ("commands", texts_or_one),
    "entrypoint": ("entrypoint", texts),
    "command": ("command", texts),
    "environment": ("environment", _environment),
    "settings": ("settings", _settings),
    "when": ("when", when),
    "depends_on": ("depends_on", texts_or_one),
    "detach": ("detach", boolean),
    "failure": ("failure", text),
    "pull": ("pull", text),
    "privileged": ("privileged", boolean),
    "volumes": ("volumes", _mounts),
    "devices": ("devices", _mounts),
    "dns": ("dns", texts_or_one),
    "dns_search": ("dns_search", texts_or_one),
    "extra_hosts": ("extra_hosts", texts_or_one),
    "network_mode": ("network_mode", text),
    "shm_size": ("shm_size", _deferred(size)),
    "mem_limit": ("mem_limit", _deferred(size)),
    "memswap_limit": ("memswap_limit", _deferred(size)),
    "user": ("user", text),
    "working_dir": ("working_dir", text),
    "shell": ("shell", text),
    "build": ("build", Whole(_text_or(_BUILD))),
    "push": ("push", Whole(_text_or({"image": ("image", text)}))),
    "ports": ("ports", _list_of(_port)),
    "resources": ("resources", _of(_RESOURCES)),
    "retry": ("retry", Whole(_deferred(_retry))),
    "timeout": ("timeout", _deferred(_timeout)),
    "reports": ("reports", _deferred(texts_or_one)),
}
_PIPELINE: Final[Table] = {
    "name": ("name", text),
    "type": ("type", text),
    "platform": (
        "platform",
        _struct(Platform, {key: (key, text) for key in ("os", "arch", "variant", "version")}),
    ),
    "node": ("node", text_map),
    "trigger": ("trigger", when),
    "depends_on": ("depends_on", texts_or_one),
    "concurrency": ("concurrency", _struct(Concurrency, {"limit": ("limit", integer)})),
    "clone": (
        "clone",
        _struct(
            Clone,
            {
                "disable": ("disable", boolean),
                "depth": ("depth", integer),
                "retries": ("retries", _deferred(integer)),
                "skip_verify": ("skip_verify", boolean),
                "trace": ("trace", _deferred(boolean)),
            },
        ),
    ),
    "workspace": (
        "workspace",
        _struct(WorkspaceDef, {"base": ("base", text), "path": ("path", text)}),
    ),
    "environment": ("environment", _deferred(text_map)),
    "image_pull_secrets": ("image_pull_secrets", texts_or_one),
    "volumes": ("volumes", _volumes),
    "services": ("services", _steps),
    "steps": ("steps", _steps),
    "matrix": ("matrix", Whole(matrix)),
    "timeout": ("timeout", _deferred(_timeout)),
}
