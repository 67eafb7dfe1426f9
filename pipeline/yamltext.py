"""YAML text as a tree of literal scalars with positions, resolved only where asked for.

The events come from libyaml where PyYAML has it, so syntax is judged as by go-yaml, which is a port
of it.
Every limit is checked while the tree grows: a hostile file costs no more than a large one.
Source: go-yaml v2 (reference: pipeline format, section 1).
"""

from __future__ import annotations

import base64
import binascii
import gc
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import yaml
from yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from pipeline.errors import Problem

MAX_BYTES: Final = 2 * 1024 * 1024
MAX_NODES: Final = 200_000
MAX_EXPANDED: Final = 400_000
MAX_DEPTH: Final = 100
MAX_DOCUMENTS: Final = 1_000
LARGE_CHARS: Final = 100_000

SCALAR: Final = "scalar"
LIST: Final = "list"
MAP: Final = "map"

#: libyaml's parser where there is one; the pure one reads the same language, slower.
LOADER: Final[Any] = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

_YAML_TAG: Final = "tag:yaml.org,2002:"
_STR_TAG: Final = "tag:yaml.org,2002:str"
_NULL_TAG: Final = "tag:yaml.org,2002:null"
_BINARY_TAG: Final = "tag:yaml.org,2002:binary"
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_WORDS: Final[dict[str, bool | float]] = {
    **dict.fromkeys(
        ["y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE"], True
    ),
    **dict.fromkeys(
        ["n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE"], False
    ),
    **dict.fromkeys([".nan", ".NaN", ".NAN"], float("nan")),
    **dict.fromkeys([".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"], float("inf")),
    **dict.fromkeys(["-.inf", "-.Inf", "-.INF"], float("-inf")),
}
_NUMBER: Final = re.compile(r"[-+0-9.]")
_DECIMAL: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_BASED: Final = re.compile(r"([-+]?)0(?:[xX]([0-9a-fA-F]+)|[bB]([01]+)|[oO]?([0-7]+))")
_FLOAT: Final = re.compile(r"[-+]?[0-9]*\.?[0-9]+([eE][-+][0-9]+)?")
_DOT_FLOAT: Final = re.compile(r"\.[0-9]+([eE][-+]?[0-9]+)?")


#: Words of the parser and what a person can do about them; `since` is where the thing starts.
_ADVICE: Final = (
    ("could not find expected ':'", "neither `key: value` nor a part of what stands above"),
    ("did not find expected key", "the indentation does not fit the map{since}"),
    ("did not find expected '-'", "the indentation does not fit the list{since}"),
    ("mapping values are not allowed", "a second `: ` in one value: quote the text"),
    ("cannot start any token", "a tab, `@`, `%` or a backtick starts a value: quote it"),
    ("alphabetic or numeric character", "quote text that starts with `*` or `&`"),
    ("unexpected end of stream", "a quote{since} is never closed"),
    ("did not find expected ',' or", "a bracket{since} is never closed"),
    ("did not find expected node content", "a bracket{since} lacks a value, or its end"),
    ("control characters", "there is an invisible control character"),
)


class YamlError(Exception):
    """Text that is not YAML, or more of it than is good. Positions are those of the file."""

    def __init__(self, code: str, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.code, self.message, self.line, self.column = code, message, line, column

    def problem(self, file: str) -> Problem:
        return Problem(self.code, self.message, self.line, self.column, file=file)


@dataclass(frozen=True, slots=True)
class Part:
    """The text of one document and how many lines of the file precede it."""

    text: str
    offset: int


class Node:
    """A scalar (`value` is its text), a list of nodes, or a map as a list of pairs of nodes.

    `plain`: written without quotes and without a tag that makes it a string. `weight`: how many
    nodes it is with aliases written out. Lines and columns start at 1.
    """

    __slots__ = ("column", "kind", "line", "plain", "tag", "value", "weight")

    def __init__(
        self, kind: str, value: Any, line: int, column: int, plain: bool = False, tag: str = ""
    ) -> None:
        self.kind = kind
        self.value = value
        self.line = line
        self.column = column
        self.plain = plain
        self.tag = tag
        self.weight = 1

    @property
    def null(self) -> bool:
        """Whether this is a null: empty, `~` or `null` without quotes."""
        return self.kind == SCALAR and (
            self.tag == _NULL_TAG or (self.plain and self.value in _NULLS)
        )


@contextmanager
def collector_paused(size: int) -> Iterator[None]:
    """Keep the garbage collector away while a large tree grows: a third of the time."""
    if size < LARGE_CHARS or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def split(text: str) -> list[Part]:
    """Cut a file into its documents: at lines starting with `---`, ending at one with `...`.

    The rest of a separator line is ignored. Source: reference section 1.
    """
    parts: list[Part] = []
    lines: list[str] | None = None
    offset = 0
    for number, line in enumerate(_lines(text)):
        separator = line.startswith("---")
        if separator or lines is None:
            if lines is not None:
                parts.append(Part("".join(lines), offset))
            lines, offset = [], number + 1 if separator else number
            if separator:
                continue
        if line.startswith("..."):
            break
        lines.append(line)
        lines.append("\n")
    if lines is not None:
        parts.append(Part("".join(lines), offset))
    return parts


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line[:-1] if line.endswith("\r") else line for line in lines]


def documents(text: str) -> list[Part]:
    """The documents of a file.

    Raises: YamlError if there are more than anybody needs.
    """
    parts = split(text)
    if len(parts) > MAX_DOCUMENTS:
        message = f"the file has more than {MAX_DOCUMENTS} documents"
        raise YamlError("yaml:too-large", message, parts[MAX_DOCUMENTS].offset or 1, 1)
    return parts


def compose(part: Part, beyond: list[tuple[int, int]] | None = None) -> Node | None:
    """The tree of a document, None if it is empty.

    `beyond` gets the place of what follows the tree and is not read, as by Go.

    Raises: YamlError.
    """
    try:
        loader = LOADER(part.text)
    except yaml.YAMLError as fault:
        raise _syntax_error(fault, part.offset) from fault
    except UnicodeEncodeError as fault:
        line = part.text.count("\n", 0, fault.start) + 1
        message = "half of a surrogate pair is no character"
        raise YamlError("yaml:encoding", message, line + part.offset, 1) from fault
    try:
        root = _Composer(part.offset).run(loader)
        if beyond is not None and root is not None:
            beyond += _beyond(loader, part.offset)
        return root
    except yaml.YAMLError as fault:
        raise _syntax_error(fault, part.offset) from fault
    finally:
        loader.dispose()


def _beyond(loader: Any, offset: int) -> Iterator[tuple[int, int]]:
    """The place of what follows a document without a separator, if anything does."""
    try:
        if loader.check_event(StreamEndEvent):
            return
        mark = loader.peek_event().start_mark
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
    if mark is not None:
        yield mark.line + 1 + offset, mark.column + 1


class _Composer:
    """Builds one tree from events, without recursion."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.anchors: dict[str, Node] = {}
        self.open: list[Node] = []
        self.count = 0
        self.expanded = 0
        self.root: Node | None = None

    def run(self, loader: Any) -> Node | None:
        place, scalar, check, take = self._place, self._scalar, loader.check_event, loader.get_event
        while check():
            event = take()
            kind = type(event)
            if kind is ScalarEvent:
                place(scalar(event))
            elif kind is MappingStartEvent:
                self._start(self._node(event, MAP))
            elif kind is SequenceStartEvent:
                self._start(self._node(event, LIST))
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                self._end()
            elif kind is AliasEvent:
                place(self._alias(event))
            elif self.root is not None and not self.open:
                break
        return self.root

    def _scalar(self, event: Any) -> Node:
        mark, tag = event.start_mark, event.tag
        plain = event.implicit[0] and tag is None
        line, column = mark.line + 1 + self.offset, mark.column + 1
        node = Node(SCALAR, event.value, line, column, plain)
        self.count += 1
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        if tag is not None and tag != "!":
            _tagged(node, tag)
        return node

    def _node(self, event: Any, kind: str) -> Node:
        mark = event.start_mark
        node = Node(kind, [], mark.line + 1 + self.offset, mark.column + 1)
        self.count += 1
        if self.count > MAX_NODES:
            raise _too_large(node)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def _alias(self, event: Any) -> Node:
        mark = event.start_mark
        line, column = mark.line + 1 + self.offset, mark.column + 1
        node = self.anchors.get(event.anchor)
        if node is None:
            raise YamlError("yaml:unknown-alias", f"no anchor `{event.anchor}`", line, column)
        if any(node is one for one in self.open):
            message = f"the value of anchor `{event.anchor}` contains itself"
            raise YamlError("yaml:endless-alias", message, line, column)
        self.expanded += node.weight
        if self.expanded > MAX_EXPANDED:
            message = f"aliases make more than {MAX_EXPANDED} values of it"
            raise YamlError("yaml:too-many-aliases", message, line, column)
        return node

    def _start(self, node: Node) -> None:
        if len(self.open) >= MAX_DEPTH:
            message = f"nested deeper than {MAX_DEPTH} levels"
            raise YamlError("yaml:too-deep", message, node.line, node.column)
        self.open.append(node)

    def _end(self) -> None:
        node = self.open.pop()
        if node.kind == MAP:
            node.value = list(zip(node.value[::2], node.value[1::2], strict=True))
        self._place(node)

    def _place(self, node: Node) -> None:
        """Put a node into the open one; the keys and values of a map alternate until its end."""
        if self.open:
            parent = self.open[-1]
            parent.value.append(node)
            parent.weight += node.weight
            if len(parent.value) > MAX_NODES:
                raise _too_large(node)
        else:
            self.root = node


def _too_large(node: Node) -> YamlError:
    message = f"more than {MAX_NODES} values in one document"
    return YamlError("yaml:too-large", message, node.line, node.column)


def _tagged(node: Node, tag: str) -> None:
    """Apply a tag: those of YAML itself but `!!str` leave the value to be resolved."""
    node.tag = tag
    node.plain = tag.startswith(_YAML_TAG) and tag not in (_STR_TAG, _BINARY_TAG)
    if tag == _BINARY_TAG:
        node.value = _unpack(node)


def _unpack(node: Node) -> str:
    try:
        data = base64.b64decode("".join(node.value.split()), validate=True)
    except (binascii.Error, ValueError) as fault:
        message = "`!!binary` needs base64"
        raise YamlError("yaml:syntax", message, node.line, node.column) from fault
    return data.decode("utf-8", "replace")


def _syntax_error(fault: yaml.YAMLError, offset: int) -> YamlError:
    """What the parser says, after what it mostly means."""
    mark = getattr(fault, "problem_mark", None)
    problem = str(getattr(fault, "problem", None) or getattr(fault, "reason", None) or "not YAML")
    start = getattr(fault, "context_mark", None)
    since = f" that starts in line {start.line + 1 + offset}" if start is not None else ""
    advice = next((text for sign, text in _ADVICE if sign in problem), "this is not YAML")
    message = f"{advice.format(since=since)} ({problem})"
    if mark is None:
        return YamlError("yaml:syntax", message, offset + 1, 1)
    return YamlError("yaml:syntax", message, mark.line + 1 + offset, mark.column + 1)


def pairs(node: Node) -> Iterable[tuple[Node, Node]]:
    """The pairs of a map with those of its merges (`<<`) in their place; of equal keys the last
    one counts, as in Go.

    Raises: YamlError if a merged value is neither a map nor a list of maps.
    """
    for key, _ in node.value:
        if _is_merge(key):
            return _with_merges(node)
    return node.value  # type: ignore[no-any-return]


def _with_merges(node: Node) -> Iterator[tuple[Node, Node]]:
    for key, value in node.value:
        if not _is_merge(key):
            yield key, value
            continue
        for source in reversed(_merged(value)):
            yield from pairs(source)


def _is_merge(key: Node) -> bool:
    return key.kind == SCALAR and key.plain and key.value == "<<"


def _merged(value: Node) -> list[Node]:
    sources = value.value if value.kind == LIST else [value]
    if any(source.kind != MAP for source in sources):
        message = "`<<` merges a map or a list of maps"
        raise YamlError("yaml:syntax", message, value.line, value.column)
    return list(sources)


def untyped(node: Node) -> Any:
    """The value of a node by YAML 1.1 as Go reads it: None, bool, int, float, str, list or dict.

    Keys of maps become the text that JSON gets (`y` is `true`, `0x1F` is `31`); dates and `1:30`
    stay strings. Source: reference section 1, untyped values.
    """
    if node.kind == LIST:
        return [untyped(item) for item in node.value]
    if node.kind == MAP:
        return {key_text(key): untyped(value) for key, value in pairs(node)}
    return resolve(node.value) if node.plain else node.value


def key_text(key: Node) -> str:
    """A map key as text.

    Raises: YamlError if it is a map or a list.
    """
    if key.kind != SCALAR:
        message = "a key must be text: quote values that start with `{` or `[`"
        raise YamlError("yaml:key", message, key.line, key.column)
    value = untyped(key)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return format(value, "g")
    return "" if value is None else str(value)


def resolve(text: str) -> bool | int | float | str | None:
    """The value of an unquoted scalar."""
    if text in _NULLS:
        return None
    word = _WORDS.get(text)
    if word is not None:
        return word
    if not _NUMBER.match(text):
        return text
    number = _integer(text.replace("_", "")) if text[0] != "." else None
    if number is not None:
        return number
    return _float(text)


def _integer(text: str) -> int | float | None:
    if _DECIMAL.fullmatch(text):
        return _sized(int(text[:400])) if len(text) <= 400 else float(text)
    based = _BASED.fullmatch(text)
    if based is None:
        return None
    sign, hexadecimal, binary, octal = based.groups()
    base, digits = (16, hexadecimal) if hexadecimal else (2, binary) if binary else (8, octal)
    value = int(digits, base)
    return _sized(-value if sign == "-" else value) if value < 1 << 64 else None


def _sized(value: int) -> int | float:
    return value if -(1 << 63) <= value < 1 << 64 else float(value)


def _float(text: str) -> float | str:
    if text[0] == ".":
        return float(text) if _DOT_FLOAT.fullmatch(text) else text
    plain = text.replace("_", "")
    return float(plain) if _FLOAT.fullmatch(plain) else text
