"""Woodpecker's conditions: a map, or a list of maps of which one must match."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.conditions import glob
from pipeline.convert import evaluate, parts
from pipeline.convert.parts import Data, Draft, condition, strings, table
from pipeline.shapes import boolean, text
from pipeline.yamltext import LIST, MAP, Node

_SAME: Final[Mapping[str, str]] = {
    "branch": "branch", "event": "event", "ref": "ref", "cron": "cron", "repo": "repo",
    "instance": "instance", "status": "status", "environment": "target",
}  # fmt: skip


def statuses(draft: Draft, node: Node) -> list[str]:
    """The words of a list of statuses."""
    return [item.value for item in strings(draft, node, "runs_on")]


class When:
    """Reads conditions for one platform and one point of the matrix, which both are known."""

    def __init__(self, draft: Draft, platform: str, point: Mapping[str, str]) -> None:
        self.draft, self.platform, self.point = draft, platform, point

    def read(self, node: Node | None, where: str) -> list[Data] | None:
        """The alternatives, one empty one for "always"; None if none can ever match."""
        items = [] if node is None else node.value if node.kind == LIST else [node]
        found = [self._alternatives(item, where) for item in items if not item.null]
        possible = [one for several in found for one in several]
        if found and not possible:
            return None
        return [{}] if not possible or {} in possible else possible

    def _alternatives(self, node: Node, where: str) -> list[Data]:
        """What an entry says, as one map or, with `evaluate`, several; none if it never holds."""
        base = self._alternative(node, where)
        if base is None:
            return []
        bases = [
            two
            for one in _apart(base, "branch", "tag", counts=False)
            for two in _apart(one, "cron", "cron", counts=True)
        ]
        expression = table(self.draft, node, where).get("evaluate")
        if expression is None:
            return bases
        place = f"{where}.evaluate"
        try:
            ways = evaluate.alternatives(text(self.draft, expression, place))
            found = [evaluate.join(one, way) for one in bases for way in ways]
        except evaluate.Refused as fault:
            advice = f"{fault}; write it as entries of `when`, with `event`, `branch`, `ref`, …"
            self.draft.refuse(expression, place, advice)
            return bases
        return [one for one in found if one is not None]

    def _alternative(self, node: Node, where: str) -> Data | None:
        result: Data = {}
        for key, value in table(self.draft, node, where).items():
            place = f"{where}.{key}"
            if key in _SAME:
                self._add(result, value, _SAME[key], condition(self.draft, value, place))
            elif key == "tag":
                refs = condition(self.draft, value, place, prefix="refs/tags/")
                self._add(result, value, "ref", refs)
            elif key == "path":
                self._add(result, value, "paths", self._paths(value, place))
            elif key in ("platform", "matrix"):
                if not self._holds(key, value, place):
                    return None
            elif key != "evaluate":
                self.draft.drop(f"`{place}`")
        return result

    def _add(self, result: Data, node: Node, key: str, value: Any) -> None:
        if key in result:
            self.draft.refuse(node, "tag", "give `ref` and `tag` in two entries of `when`")
        result[key] = value

    def _paths(self, node: Node, where: str) -> Any:
        if node.kind != MAP:
            return condition(self.draft, node, where)
        values = table(self.draft, node, where)
        empty = values.get("on_empty")
        if empty is not None and not boolean(self.draft, empty, f"{where}.on_empty"):
            advice = "without changed files a step runs; it can test for that itself"
            self.draft.refuse(empty, f"{where}.on_empty", advice)
        if "ignore_message" in values:
            self.draft.drop(f"`{where}.ignore_message`")
        return condition(self.draft, node, where)

    def _holds(self, key: str, node: Node, where: str) -> bool:
        if key == "matrix":
            return parts.matrix_matches(self.draft, node, self.point)
        if "${" in self.platform and not self.point:
            self.draft.refuse(node, where, "one workflow per platform")
        rule = condition(self.draft, node, where)
        include = rule if isinstance(rule, list) else rule.get("include", [])
        exclude = [] if isinstance(rule, list) else rule.get("exclude", [])
        if any(glob(pattern, self.platform) for pattern in exclude):
            return False
        return not include or any(glob(pattern, self.platform) for pattern in include)


def _apart(base: Data, key: str, event: str, *, counts: bool) -> list[Data]:
    """A condition that counts for one event only, or for all but one, as alternatives.

    `branch` is not asked for tags, `cron` for its own event only.
    """
    if key not in base:
        return [base]
    rest = {name: value for name, value in base.items() if name != key}
    mine, others = _divided(base.get("event", []), event)
    found = []
    if others is not None:
        found.append((rest if counts else base) | {"event": others})
    if mine:
        found.append((base if counts else rest) | {"event": [event]})
    return found


def _divided(events: Any, event: str) -> tuple[bool, Any]:
    """Whether a condition lets an event through, and the condition without it; None: no other."""
    include = events if isinstance(events, list) else events.get("include", [])
    exclude = [] if isinstance(events, list) else events.get("exclude", [])
    mine = (not include or event in include) and event not in exclude
    kept = [one for one in include if one != event]
    if include:
        condition = {"include": kept, "exclude": exclude} if exclude else kept
        return mine, condition if kept else None
    return mine, {"exclude": [*exclude, *([] if event in exclude else [event])]}
