"""What the two older dialects share: lists or single values, environments, volumes, groups."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from pipeline.conditions import glob
from pipeline.errors import PipelineError
from pipeline.shapes import Notes, check_key, text
from pipeline.yamltext import LIST, MAP, SCALAR, Node, YamlError, pairs

Data = dict[str, Any]

#: A converted file has at most so many values.
MAX_VALUES: Final = 40_000
MAX_MOUNTS: Final = 2_000
#: How a comment on top of a converted file begins that names what is not in it.
LEFT_OUT: Final = "Left out: "
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9]+")
#: Events under their new names.
EVENTS: Final[Mapping[str, str]] = {"deployment": "promote", "manual": "custom"}


class Draft(Notes):
    """Errors, with their places, and what the conversion had to leave out, for a comment."""

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.dropped: list[str] = []

    def drop(self, what: str) -> None:
        if what not in self.dropped:
            self.dropped.append(what)

    def refuse(self, node: Node, construct: str, advice: str) -> None:
        """Note a construct without the same meaning here."""
        self.error("convert:unsupported", node, f"`{construct}` cannot be converted: {advice}")

    def check_size(self, node: Node | None, times: int = 1) -> None:
        """Refuse to write more than is good: a file `times` over."""
        if node is not None and node.weight * max(times, 1) > MAX_VALUES:
            message = f"the file is too large to be converted: more than {MAX_VALUES} values"
            self.error("yaml:too-large", node, message)
            self.raise_problems()

    def raise_problems(self) -> None:
        """Raise everything noted so far, if anything was."""
        if self.problems:
            found = dict.fromkeys(self.problems)
            raise PipelineError(sorted(found, key=lambda one: (one.file, one.line, one.column)))


def entries(draft: Draft, node: Node | None, where: str) -> Iterator[tuple[str, Node]]:
    """The pairs of a map by the text of their keys, keys given twice included; none for null."""
    if node is None or node.null:
        return
    if node.kind != MAP:
        draft.wrong(node, where, "a map")
        return
    for key, value in pairs(node):
        if check_key(draft, key):
            yield key.value, value


def table(draft: Draft, node: Node | None, where: str) -> dict[str, Node]:
    """A map by the text of its keys, without null values; the last of equal keys counts."""
    return {key: value for key, value in entries(draft, node, where) if not value.null}


def strings(draft: Draft, node: Node, where: str) -> list[Node]:
    """One string or a list of them; an item `<<: *list` stands for the items of that list."""
    if node.kind == SCALAR:
        return [node]
    if node.kind != LIST:
        draft.wrong(node, where, "text or a list of it")
        return []
    found: list[Node] = []
    for item in node.value:
        spliced = _spliced(item)
        if spliced is not None:
            found += strings(draft, spliced, where)
        elif item.kind == SCALAR:
            found.append(item)
        else:
            draft.wrong(item, where, "text: quote it, `: ` makes it a map")
    return found


def _spliced(item: Node) -> Node | None:
    if item.kind == MAP and len(item.value) == 1:
        key, value = item.value[0]
        if key.kind == SCALAR and key.value == "<<" and value.kind == LIST:
            return value  # type: ignore[no-any-return]
    return None


def environment(draft: Draft, node: Node, where: str) -> Data:
    """A map, or a list of `KEY=value`."""
    if node.kind == LIST:
        found: Data = {}
        for item in strings(draft, node, where):
            key, equals, value = item.value.partition("=")
            if equals:
                found[key] = value
        return found
    return dict(table(draft, node, where))


def secrets(draft: Draft, node: Node, where: str) -> Data:
    """A list of secrets as environment: names, or maps of `source` and `target`."""
    found: Data = {}
    items = node.value if node.kind == LIST else [node]
    for item in items:
        if item.kind == SCALAR:
            source = target = item.value
        else:
            values = table(draft, item, where)
            source = text(draft, values["source"], where) if "source" in values else ""
            target = text(draft, values["target"], where) if "target" in values else source
        found[target.upper()] = {"from_secret": source}
    return found


def condition(draft: Draft, node: Node, where: str, *, prefix: str = "") -> Any:
    """A condition in its new form; scalars inside `include` and `exclude` become lists."""
    if node.kind != MAP:
        return [_glob(item.value, prefix) for item in strings(draft, node, where)]
    values = table(draft, node, where)
    return {
        key: [_glob(item.value, prefix) for item in strings(draft, values[key], where)]
        for key in ("include", "exclude")
        if key in values
    }


def _glob(value: str, prefix: str) -> str:
    return prefix + EVENTS.get(value, value)


class Volumes:
    """Host volumes, named after their paths, declared once."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.paths: dict[str, Node] = {}
        self.count = 0

    def mount(self, spec: Node) -> Data | None:
        """The mount for `source:destination[:mode]`, None for another form.

        Raises: YamlError for more mounts than good.
        """
        self.count += 1
        if self.count > MAX_MOUNTS:
            message = f"too large to be converted: more than {MAX_MOUNTS} volumes are mounted"
            raise YamlError("yaml:too-large", message, spec.line, spec.column)
        parts = spec.value.split(":")
        if len(parts) < 2:
            return None
        self.paths.setdefault(parts[0], Node(SCALAR, parts[0], spec.line, spec.column))
        return {"name": self._name(parts[0]), "path": parts[1]}

    def _name(self, path: str) -> str:
        if path not in self.names:
            name = base = _UNSAFE.sub("-", path).strip("-").lower() or "root"
            taken = set(self.names.values())
            number = 1
            while name in taken:
                number += 1
                name = f"{base}-{number}"
            self.names[path] = name
        return self.names[path]

    def declared(self) -> list[Data]:
        return [
            {"name": name, "host": {"path": self.paths[path]}} for path, name in self.names.items()
        ]


def rename(steps: list[Data], taken: Iterable[str]) -> None:
    """Give steps whose name is taken, or was given before, their index after it.

    What waits for a step under its old name waits for it under the new one.
    """
    seen = set(taken)
    new: dict[str, str] = {}
    for index, step in enumerate(steps):
        name = step["name"]
        if name in seen:
            step["name"] = f"{name}_{index}"
            new.setdefault(name, step["name"])
        seen.add(step["name"])
    for step in steps:
        if "depends_on" in step:
            step["depends_on"] = [new.get(name, name) for name in step["depends_on"]]


def order_groups(steps: list[Data], services: list[Data], groups: list[str]) -> None:
    """Give steps of one group, which ran side by side, the `depends_on` that says so."""
    if not any(groups):
        return
    before = [one["name"] for one in services]
    current: list[str] = []
    last = ""
    count = 0
    for step, group in zip(steps, groups, strict=True):
        if current and not (group and group == last):
            before, current = current, []
        if before:
            step["depends_on"] = list(before)
            count += len(before)
            check_edges(count)
        current.append(step["name"])
        last = group


def check_edges(count: int) -> None:
    """Refuse to write out an order that is longer than good.

    Raises: YamlError.
    """
    if count > MAX_VALUES:
        message = f"too large to be converted: steps wait for more than {MAX_VALUES} others"
        raise YamlError("yaml:too-large", message, 1, 1)


def in_matrix(draft: Draft, when: Node | None, point: Mapping[str, str]) -> bool:
    """Whether `when.matrix` lets a step into the pipeline of a point."""
    if when is None or when.kind != MAP:
        return True
    rule = table(draft, when, "when").get("matrix")
    return rule is None or not point or matrix_matches(draft, rule, point)


def matrix_matches(draft: Draft, rule: Node, point: Mapping[str, str]) -> bool:
    """Whether a point has the values of a rule: a map, or `include` and `exclude` with maps."""
    values = table(draft, rule, "when.matrix")
    include, exclude = values.get("include"), values.get("exclude")
    if (include is None or include.kind == SCALAR) and (exclude is None or exclude.kind == SCALAR):
        return _holds(values, point)
    if exclude is not None and _holds(table(draft, exclude, "when.matrix.exclude"), point):
        return False
    return include is None or _holds(table(draft, include, "when.matrix.include"), point)


def _holds(values: Mapping[str, Node], point: Mapping[str, str]) -> bool:
    return all(glob(str(node.value), point.get(key, "")) for key, node in values.items())


Change = Callable[[str], str]


def filler(point: Mapping[str, str]) -> Change:
    """A change of text: the values of a point where `${KEY}` stands."""

    def change(text: str) -> str:
        for key, replacement in point.items():
            text = text.replace(f"${{{key}}}", replacement)
        return text

    return change


def fill(value: Any, change: Change) -> Any:
    """Data with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {fill(key, change): fill(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, change) for item in value]
    return _fill_node(value, change) if isinstance(value, Node) else value


def _fill_node(node: Node, change: Change) -> Node:
    copy = Node(node.kind, node.value, node.line, node.column)
    copy.plain, copy.tag = node.plain, node.tag
    if node.kind == MAP:
        copy.value = [(_fill_node(k, change), _fill_node(v, change)) for k, v in node.value]
    elif node.kind == LIST:
        copy.value = [_fill_node(item, change) for item in node.value]
    else:
        copy.value = change(node.value)
    return copy
