"""Write modern files: plain data and nodes of the old file to YAML, block style.

Scalars that come from the old file keep how they were written: what was quoted stays a string, what
was not keeps its YAML type, also after substitution.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from pipeline.yamltext import LIST, MAP, Node, pairs, resolve

_STR: Final = "tag:yaml.org,2002:str"
_SAFE: Final = re.compile(r"[A-Za-z0-9_./$(][A-Za-z0-9_./@$(){}+ =,;|&<>'\"*?\[\]^~!%\\-]*")


#: libyaml's emitter where there is one.
_DUMPER: Final[Any] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


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
