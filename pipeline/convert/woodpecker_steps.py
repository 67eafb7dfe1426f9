"""Woodpecker's steps, services and clone steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.convert import parts
from pipeline.convert.parts import Data, Draft, Volumes, entries, strings, table
from pipeline.convert.woodpecker_when import When
from pipeline.shapes import boolean, integer, text
from pipeline.yamltext import LIST, MAP, SCALAR, Node, pairs

_SAME: Final = (
    "image", "network_mode", "shm_size", "mem_limit", "memswap_limit", "user", "detach",
    "privileged",
)  # fmt: skip
_LISTS: Final = ("commands", "entrypoint", "command", "dns", "dns_search", "extra_hosts")
_READ: Final = frozenset(
    (
        *_SAME, *_LISTS, "name", "environment", "secrets", "settings", "when", "depends_on",
        "failure", "pull", "directory", "volumes", "backend_options", "group", "devices",
    )
)  # fmt: skip
_FAILURES: Final = {"ignore": "ignore", "cancel": "fast", "fail": ""}
_REFUSED: Final[Mapping[str, str]] = {
    "tmpfs": "declare a volume with `temp: {medium: memory}` and mount it",
    "cap_add": "`privileged: true` in a trusted repo",
    "sysctls": "there is none",
    "ulimits": "there is none",
}
_PLAIN_CLONES: Final = ("woodpeckerci/plugin-git", "plugins/git", "drone/git")
#: Settings of the git plugin that the built-in clone has, or that change nothing but speed.
_CLONE_OPTIONS: Final = {"depth": "depth", "skip_verify": "skip_verify", "partial": ""}


@dataclass(frozen=True, slots=True)
class Clone:
    """How a workflow gets its source: options of the built-in clone, or steps in its place."""

    options: Data = field(default_factory=dict)
    steps: list[Data] = field(default_factory=list)


class Steps:
    """Reads lists or maps of steps."""

    def __init__(self, draft: Draft, when: When, volumes: Volumes) -> None:
        self.draft, self.when, self.volumes = draft, when, volumes
        self.graph = False
        self.groups: list[str] = []

    def read(self, node: Node | None, where: str) -> list[Data]:
        """The steps; those that can never run here are left out."""
        found = []
        self.groups = []
        for index, (name, values, place) in enumerate(self._items(node, where)):
            group = values.get("group")
            when = self.when.read(values.get("when"), f"{where}.when")
            if when is None:
                self.draft.drop(f"step `{name}`: its `when` never matches here")
                continue
            step = self._step(name or f"step-{index + 1}", values, where, place)
            if when != [{}]:
                step["when"] = when[0] if len(when) == 1 else when
            self.groups.append(text(self.draft, group, "group") if group is not None else "")
            found.append(step)
        return found

    def _items(self, node: Node | None, where: str) -> Iterator[tuple[str, dict[str, Node], Node]]:
        if node is None or node.null:
            return
        if node.kind == LIST:
            for item in node.value:
                values = table(self.draft, item, where)
                name = values.get("name")
                if name is None and where == "services":
                    self.draft.refuse(item, "services", "a service needs a `name`: its host name")
                known = text(self.draft, name, f"{where}.name") if name is not None else ""
                yield known, values, item
            return
        for key, value in entries(self.draft, node, where):
            yield key, table(self.draft, value, f"{where}.{key}"), value

    def _step(self, name: str, values: dict[str, Node], where: str, place: Node) -> Data:
        step: Data = {"name": name}
        if "image" not in values:
            message = f"step `{name}` needs an `image`"
            self.draft.error("step:image", place, message)
        for key in _SAME:
            if key in values:
                step[key] = values[key]
        for key in _LISTS:
            if key in values:
                step[key] = strings(self.draft, values[key], f"{where}.{name}.{key}")
        step["environment"] = self._environment(name, values)
        step["settings"] = self._settings(name, values)
        step |= self._policy(name, values) | self._place(name, values)
        for key, node in values.items():
            if key in _REFUSED:
                self.draft.refuse(node, key, _REFUSED[key])
            elif key not in _READ:
                self.draft.drop(f"`{key}` of step `{name}`")
        return step

    def _environment(self, name: str, values: dict[str, Node]) -> Data:
        found: Data = {}
        if "environment" in values:
            found |= parts.environment(self.draft, values["environment"], f"{name}.environment")
        if "secrets" in values:
            found |= parts.secrets(self.draft, values["secrets"], f"{name}.secrets")
        return found

    def _settings(self, name: str, values: dict[str, Node]) -> Data:
        if "settings" not in values:
            return {}
        for key in ("commands", "entrypoint", "environment"):
            if key in values:
                advice = "`settings` make the step a plugin: put it into a step of its own"
                self.draft.refuse(values[key], key, advice)
        found: Data = {}
        for key, value in table(self.draft, values["settings"], f"{name}.settings").items():
            if _deep_secret(value, 0):
                advice = "only a setting itself can be `{from_secret: NAME}`"
                self.draft.refuse(value, f"settings.{key}", advice)
            found[key.replace("-", "_").replace(".", "_")] = value
        return found

    def _policy(self, name: str, values: dict[str, Node]) -> Data:
        found: Data = {}
        if "pull" in values and boolean(self.draft, values["pull"], f"{name}.pull"):
            found["pull"] = "always"
        if "failure" in values:
            word = text(self.draft, values["failure"], f"{name}.failure")
            if word not in _FAILURES:
                self.draft.refuse(values["failure"], f"failure: {word}", "ignore, cancel or fail")
            found["failure"] = _FAILURES.get(word, "")
        if "depends_on" in values:
            self.graph = True
            found["depends_on"] = [
                item.value for item in strings(self.draft, values["depends_on"], "depends_on")
            ]
        return {key: value for key, value in found.items() if value != ""}

    def _place(self, name: str, values: dict[str, Node]) -> Data:
        found: Data = {}
        if "directory" in values:
            found["working_dir"] = values["directory"]
        if "volumes" in values:
            specs = strings(self.draft, values["volumes"], f"{name}.volumes")
            mounts = [self.volumes.mount(item) for item in specs]
            found["volumes"] = [one for one in mounts if one is not None]
        if "devices" in values:
            specs = strings(self.draft, values["devices"], f"{name}.devices")
            devices = [self.volumes.mount(item) for item in specs]
            found["devices"] = [one for one in devices if one is not None]
        found |= self._backend(name, values.get("backend_options"))
        return found

    def _backend(self, name: str, node: Node | None) -> Data:
        options = table(self.draft, node, f"{name}.backend_options")
        found = {}
        for backend, value in options.items():
            if backend != "docker":
                self.draft.drop(f"`backend_options.{backend}` of step `{name}`")
                continue
            for key, option in table(self.draft, value, "backend_options.docker").items():
                if key == "user":
                    found["user"] = option
                else:
                    self.draft.drop(f"`backend_options.docker.{key}` of step `{name}`")
        return found

    def order(self, steps: list[Data], services: list[Data], cloning: Clone) -> None:
        """Write out the order: a `depends_on`, even an empty one, makes a graph of it."""
        taken = [one["name"] for one in (*services, *cloning.steps)]
        parts.rename(steps, taken if cloning.options.get("disable") else [*taken, "clone"])
        if not self.graph:
            groups = [""] * len(cloning.steps) + self.groups
            parts.order_groups(cloning.steps + steps, services, groups)
            return
        before = [one["name"] for one in services or cloning.steps[-1:]] or ["clone"]
        parts.check_edges(len(before) * len(steps))
        for step in steps:
            if not step.get("depends_on"):
                step["depends_on"] = list(before)
        for earlier, later in zip(cloning.steps, cloning.steps[1:], strict=False):
            later["depends_on"] = [earlier["name"]]
        if cloning.steps:
            for service in services:
                service["depends_on"] = [cloning.steps[-1]["name"]]


def _deep_secret(node: Node, depth: int) -> bool:
    """Whether `from_secret` stands deeper than in a setting itself."""
    if node.kind == LIST:
        return any(_deep_secret(item, depth + 1) for item in node.value)
    if node.kind != MAP:
        return False
    return any(
        (key.value == "from_secret" and depth > 0) or _deep_secret(value, depth + 1)
        for key, value in pairs(node)
    )


def clone(draft: Draft, top: Mapping[str, Node], reader: Steps) -> Clone:
    """The built-in clone where the steps of `clone` do no more, else these in its place."""
    skip = top.get("skip_clone")
    if skip is not None and boolean(draft, skip, "skip_clone"):
        return Clone({"disable": True})
    node = top.get("clone")
    if node is None or node.null:
        return Clone()
    items = _clone_items(draft, node)
    if len(items) == 1:
        options = _built_in(draft, items[0])
        if options is not None:
            return Clone(options)
    steps = reader.read(_with_settings(node), "clone")
    for step in steps:
        step["settings"] |= {key: step.pop(key) for key in list(step) if key == "depth"}
    return Clone({"disable": True}, steps)


def _clone_items(draft: Draft, node: Node) -> list[dict[str, Node]]:
    if node.kind == LIST:
        return [table(draft, item, "clone") for item in node.value]
    return [table(draft, value, "clone") for _, value in entries(draft, node, "clone")]


def _built_in(draft: Draft, values: Mapping[str, Node]) -> Data | None:
    """Options of the built-in clone that mean the same as this step, None if none do."""
    image = values.get("image")
    if image is not None and str(image.value).partition(":")[0] not in _PLAIN_CLONES:
        return None
    settings = dict(table(draft, values.get("settings"), "clone.settings"))
    settings |= {k: v for k, v in values.items() if k not in ("name", "image", "settings", "pull")}
    if not set(settings) <= set(_CLONE_OPTIONS):
        return None
    found: Data = {}
    for key, value in settings.items():
        if key == "depth":
            found["depth"] = integer(draft, value, "clone.depth")
        elif key == "skip_verify":
            found["skip_verify"] = boolean(draft, value, "clone.skip_verify")
    return found


def _with_settings(node: Node) -> Node:
    """Clone steps of the old kind had their settings beside their keys: put them below."""
    result = Node(node.kind, [], node.line, node.column)
    if node.kind == LIST:
        result.value = [_below(item) for item in node.value]
    elif node.kind == MAP:
        result.value = [(key, _below(value)) for key, value in pairs(node)]
    return result


def _below(node: Node) -> Node:
    if node.kind != MAP:
        return node
    own: list[Any] = []
    rest: list[Any] = []
    for key, value in pairs(node):
        (own if key.value in _READ else rest).append((key, value))
    if not rest:
        return node
    settings = Node(MAP, rest, node.line, node.column)
    name = Node(SCALAR, "settings", node.line, node.column)
    for key, value in own:
        if key.value == "settings" and value.kind == MAP:
            settings.value = [*value.value, *rest]
    result = Node(MAP, [(k, v) for k, v in own if k.value != "settings"], node.line, node.column)
    result.value.append((name, settings))
    return result
