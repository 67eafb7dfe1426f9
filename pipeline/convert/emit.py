"""Write modern files: plain data and nodes of the old file to YAML, block style.

Scalars that come from the old file keep how they were written: what was quoted stays a string, what
was not keeps its YAML type, also after substitution.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from pipeline.resources import Position
from pipeline.yamltext import LIST, MAP, Node, compose, pairs, resolve
from pipeline.yamltext import documents as parts_of

_STR: Final = "tag:yaml.org,2002:str"
_SAFE: Final = re.compile(r"[A-Za-z0-9_./$(][A-Za-z0-9_./@$(){}+ =,;|&<>'\"*?\[\]^~!%\\-]*")


#: libyaml's emitter where there is one.
_DUMPER: Final[Any] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True, slots=True)
class Written:
    """The text of a file and what it was written from: of one file, or each document of its own.

    `files` then names the file of each document.
    """

    text: str
    documents: Sequence[Mapping[str, Any]] = ()
    files: Sequence[str] = ()

    def origins(self) -> Origins:
        """Where in the old files the lines of this one come from."""
        found: list[Origin] = []
        for index, part in enumerate(parts_of(self.text)):
            places: dict[int, Position] = {}
            root = compose(part)
            if root is not None:
                _locate(self.documents[index], root, places)
            file = self.files[index] if self.files else ""
            found.append(Origin(root.line if root else 1, file, sorted(places.items())))
        return Origins(found)


@dataclass(frozen=True, slots=True)
class Origin:
    """A document: its first line, the file it comes from, lines with their places there."""

    line: int
    file: str
    places: Sequence[tuple[int, Position]]

    def of(self, line: int) -> Position:
        """The place of what stands in a line, or of what stands nearest below, or above."""
        after = bisect.bisect_left(self.places, (line, (0, 0)))
        near = self.places[after : after + 1] or self.places[-1:]
        return near[0][1] if near else (1, 1)


@dataclass(frozen=True, slots=True)
class Origins:
    """Documents in order."""

    documents: Sequence[Origin]

    def of(self, line: int) -> tuple[str, Position]:
        """File and place of what a line comes from; "": the file that was converted."""
        after = bisect.bisect_right([one.line for one in self.documents], line)
        near = self.documents[max(0, after - 1) :][:1]
        return (near[0].file, near[0].of(line)) if near else ("", (1, 1))


def _locate(value: Any, node: Node, places: dict[int, Position]) -> None:
    """Note the old place of each line of a value that was written as a node."""
    if isinstance(value, Node):
        places.setdefault(node.line, (value.line, value.column))
        value = dict(pairs(value)) if value.kind == MAP else value.value
    items: Iterable[Any] = ()
    if isinstance(value, Mapping):
        items = zip(value.values(), [item for _, item in node.value], strict=False)
    elif isinstance(value, (list, tuple)):
        items = zip(value, node.value, strict=False)
    for inner, item in items:
        _locate(inner, item, places)


def to_yaml(documents: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> str:
    """The text of a file of these documents, `notes` as comments on top.

    Values are dicts, sequences, str, bool, int, float, None or `Node`.
    """
    texts = [
        yaml.serialize(_node(one), Dumper=_DUMPER, width=1 << 30, allow_unicode=True)
        for one in documents
    ]
    head = "".join(f"# {' '.join(note.split())}\n" for note in notes)
    return "---\n" + head + "\n---\n".join(texts)


def _node(value: Any) -> yaml.Node:
    if isinstance(value, Node):
        return _copy(value)
    if isinstance(value, Mapping):
        items = [(_text(str(key)), _node(item)) for key, item in value.items()]
        return yaml.MappingNode("tag:yaml.org,2002:map", items, flow_style=False)
    if isinstance(value, (list, tuple)):
        return yaml.SequenceNode(
            "tag:yaml.org,2002:seq", [_node(item) for item in value], flow_style=not value
        )
    if isinstance(value, str):
        return _text(value)
    if value is None:
        return _plain("null")
    return _plain(str(value).lower() if isinstance(value, bool) else str(value))


def _copy(node: Node) -> yaml.Node:
    if node.kind == MAP:
        return _node({key.value: value for key, value in pairs(node)})
    if node.kind == LIST:
        return _node(list(node.value))
    return _plain(node.value) if node.plain else _text(node.value)


def _plain(text: str) -> yaml.Node:
    """A scalar without quotes if YAML lets it stand so."""
    tag = yaml.SafeLoader.yaml_implicit_resolvers
    found = next(
        (tag_ for tag_, regexp in tag.get(text[:1], []) if regexp.match(text)),
        _STR,
    )
    style = "|" if "\n" in text else None
    return yaml.ScalarNode(found if style is None else _STR, text, style=style)


def _text(text: str) -> yaml.Node:
    """A string: quoted where it would otherwise be something else."""
    if "\n" in text:
        return yaml.ScalarNode(_STR, text, style="|")
    if _SAFE.fullmatch(text) and isinstance(resolve(text), str):
        return yaml.ScalarNode(_STR, text)
    return yaml.ScalarNode(_STR, text, style="'")
