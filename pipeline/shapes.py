"""Typed reading of YAML nodes: every mismatch is noted with its place, none stops the reading.

A reader takes a `Notes`, a node and the words that name the value in a message. Null is handled by
`fields`: a key with null keeps its default. Source: reference section 1, YAML rules.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.errors import ERROR, WARNING, Problem
from pipeline.resources import Position
from pipeline.yamltext import LIST, MAP, SCALAR, Node, pairs, untyped

Reader = Callable[["Notes", Node, str], Any]
#: The field of the dataclass, how its value is read.
Table = Mapping[str, tuple[str, Reader]]

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)*) ?([kKmMgGtTpP]?)[iI]?[bB]?")
_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
#: More findings of one sort nobody reads.
MAX_PROBLEMS: Final = 1_000
#: So many different unknown keys get a hint; looking for the nearest one takes time.
MAX_HINTS: Final = 100
_KINDS: Final = {SCALAR: "a single value", LIST: "a list", MAP: "a map"}


@dataclass(frozen=True, slots=True)
class Whole:
    """A reader of a value that a second one replaces, where two maps are otherwise joined."""

    read: Reader

    def __call__(self, notes: Notes, node: Node, where: str) -> Any:
        return self.read(notes, node, where)


@dataclass(slots=True)
class Notes:
    """What was found wrong: `problems` stop the build, `deferred` only the stage, at its lint."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    deferred: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    hints: dict[str, str] = field(default_factory=dict)

    def error(self, code: str, node: Node, message: str) -> None:
        problem = Problem(code, message, node.line, node.column, ERROR, self.file)
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)

    def warn(self, code: str, node: Node, message: str) -> None:
        problem = Problem(code, message, node.line, node.column, WARNING, self.file)
        if len(self.warnings) < MAX_PROBLEMS:
            self.warnings.append(problem)

    def wrong(self, node: Node, where: str, expected: str) -> None:
        """Note a value of the wrong type."""
        found = _KINDS[node.kind]
        if node.kind == SCALAR:
            text = node.value if len(node.value) <= 40 else node.value[:37] + "..."
            found = f"`{text}`"
        self.error("config:wrong-type", node, f"`{where}` must be {expected}, not {found}")


def text(notes: Notes, node: Node, where: str) -> str:
    """The literal text of a scalar: `1.10` and `yes` stay as written; null is empty."""
    if node.kind != SCALAR:
        notes.wrong(node, where, "a single value")
        return ""
    return "" if node.null else str(node.value)


def boolean(notes: Notes, node: Node, where: str) -> bool:
    value = untyped(node) if node.kind == SCALAR else None
    if isinstance(value, bool):
        return value
    notes.wrong(node, where, "true or false, without quotes")
    return False


def integer(notes: Notes, node: Node, where: str) -> int:
    value = untyped(node) if node.kind == SCALAR else None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return int(value)
    notes.wrong(node, where, "a whole number, without quotes")
    return 0


def size(notes: Notes, node: Node, where: str) -> int:
    """Bytes: a number, or text such as `512m` or `1.5 GiB`, by powers of 1024."""
    if node.kind == SCALAR:
        value = untyped(node)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 1 << 63:
            return int(value)
        match = _SIZE.fullmatch(node.value)
        if match and match[1].count(".") <= 1 and len(match[1]) < 20:
            return int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])
    notes.wrong(node, where, "a size such as 512m or 1GiB")
    return 0


def duration(notes: Notes, node: Node, where: str) -> float:
    """Seconds, from text such as `90s`, `10m`, `1h30m`; a bare number could be minutes as well."""
    if node.kind == SCALAR:
        match = _DURATION.fullmatch(node.value)
        if match and match[0] and len(match[0]) < 20:
            hours, minutes, seconds = (float(part or 0) for part in match.groups())
            return hours * 3600 + minutes * 60 + seconds
    notes.wrong(node, where, "a duration with its unit, such as 90s, 10m or 1h30m")
    return 0.0


def texts(notes: Notes, node: Node, where: str) -> tuple[str, ...]:
    """A list of strings, and nothing else."""
    if node.kind != LIST:
        notes.wrong(node, where, "a list")
        return ()
    return tuple(_item(notes, item, where) for item in node.value)


def _item(notes: Notes, node: Node, where: str) -> str:
    if node.kind == SCALAR:
        return "" if node.null else str(node.value)
    hint = " (quote it, `: ` makes it a map)" if node.kind == MAP else ""
    notes.wrong(node, f"{where}[]", f"a single value{hint}")
    return ""


def texts_or_one(notes: Notes, node: Node, where: str) -> tuple[str, ...]:
    """A list of strings, or one string for a list of one (extension, where unambiguous)."""
    if node.kind == SCALAR and node.value.strip():
        return (str(node.value),)
    return texts(notes, node, where)


def text_map(notes: Notes, node: Node, where: str) -> dict[str, str]:
    """A map of strings to strings."""
    return each(notes, node, where, text)


def each(notes: Notes, node: Node, where: str, reader: Reader) -> dict[str, Any]:
    """A map with any keys, its values read by `reader`; null values too."""
    if node.kind != MAP:
        notes.wrong(node, where, "a map")
        return {}
    return {
        key.value: reader(notes, value, f"{where}.{key.value}")
        for key, value in pairs(node)
        if check_key(notes, key)
    }


def check_key(notes: Notes, key: Node) -> bool:
    """Whether a key is a scalar; notes it if not (`{{ x }}` without quotes is a map in a map)."""
    if key.kind == SCALAR:
        return True
    notes.error("config:wrong-type", key, "a key must be text; quote values that start with `{`")
    return False


def items(notes: Notes, node: Node, where: str, reader: Reader) -> tuple[Any, ...]:
    """A list whose items are read by `reader`, null ones too."""
    if node.kind != LIST:
        hint = "" if node.kind != MAP else " (`- name: …` for each)"
        notes.wrong(node, where, f"a list{hint}")
        return ()
    return tuple(reader(notes, item, f"{where}[{i}]") for i, item in enumerate(node.value))


def fields(
    notes: Notes,
    node: Node,
    where: str,
    table: Table,
    at: dict[str, Position] | None = None,
    also: Collection[str] = (),
) -> dict[str, Any]:
    """The values of a map whose keys are known, by field name; absent and null ones are left out.

    Unknown keys are a warning with the nearest known one, keys given twice a warning: the last one
    counts, as in Go. `also` are keys to pass over in silence; `at` receives the places of keys.
    """
    if node.kind != MAP:
        notes.wrong(node, where, "a map")
        return {}
    found: dict[str, list[Node]] = {}
    for key, value in _known_pairs(notes, node, where, table, also):
        name = key.value
        if at is not None:
            at[name] = (key.line, key.column)
        if value.null:
            found[name] = []
        else:
            found.setdefault(name, []).append(value)
    return {
        table[name][0]: _last(notes, nodes, f"{where}.{name}" if where else name, table[name][1])
        for name, nodes in found.items()
        if nodes
    }


def _known_pairs(
    notes: Notes, node: Node, where: str, table: Table, also: Collection[str]
) -> Iterator[tuple[Node, Node]]:
    """The pairs whose keys somebody reads; warns about the others, and about repeated keys."""
    own: dict[str, Node] = {}
    items = pairs(node)
    written = None if items is node.value else {id(key) for key, _ in node.value}
    for key, value in items:
        name = key.value
        if not check_key(notes, key):
            continue
        mine = written is None or id(key) in written
        if name in own:
            _warn_repeated(notes, key if mine else own[name], mine)
        if mine:
            own[name] = key
        if name in table:
            yield key, value
        elif name not in also:
            unknown(notes, key, where, [*table, *also])


def _warn_repeated(notes: Notes, key: Node, written: bool) -> None:
    if written:
        message = f"`{key.value}` is given twice: the last one counts, of maps key by key"
    else:
        message = f"`{key.value}` is given again by the `<<` below, and that counts: put `<<` first"
    notes.warn("config:duplicate-key", key, message)


def _last(notes: Notes, nodes: Sequence[Node], where: str, reader: Reader) -> Any:
    """The value of a key given once or more: the last one, or all maps in one, key by key.

    Source: go-yaml v2, which decodes the second map into the value of the first.
    """
    values = [reader(notes, node, where) for node in nodes]
    if len(nodes) == 1 or isinstance(reader, Whole) or any(node.kind != MAP for node in nodes):
        return values[-1]
    joined: dict[object, tuple[Node, Node]] = {}
    for node in nodes:
        for key, value in pairs(node):
            joined[key.value if key.kind == SCALAR else key] = (key, value)
    return reader(notes, Node(MAP, list(joined.values()), nodes[0].line, nodes[0].column), where)


def unknown(notes: Notes, key: Node, where: str, known: Collection[str]) -> None:
    """Warn about a key nobody reads."""
    place = f" in `{where}`" if where else ""
    name = key.value[:100]
    hint = notes.hints.get(name)
    if hint is None:
        near = difflib.get_close_matches(name, known, n=1) if len(notes.hints) < MAX_HINTS else []
        hint = f"did you mean `{near[0]}`?" if near else "it has no effect"
        notes.hints[name] = hint
    notes.warn("config:unknown-key", key, f"`{name}`{place}: {hint}")
