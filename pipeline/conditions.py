"""Whether conditions match: globs, properties of a build, run policies.

Source: doublestar 1.1.1 as the original uses it, and reference section 3.1 and 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from pipeline.facts import BuildFacts, RepoFacts
from pipeline.resources import Condition, Conditions, When
from pipeline.spec import ALWAYS, ON_FAILURE, ON_SUCCESS

NEVER: Final = "never"

DEFAULT_BRANCH: Final = "${CI_REPO_DEFAULT_BRANCH}"
#: A glob with more wildcards than this matches nothing: it is an attack, not a pattern.
MAX_WILDCARDS: Final = 32
_STARS: Final = ("*", "**")
_SPECIAL: Final = frozenset("*?[{\\")
_ORDER: Final = ("branch", "event", "action", "ref", "repo", "target", "cron", "instance")


@dataclass(frozen=True, slots=True)
class Subject:
    """The properties that conditions are compared with. `paths` is None where nobody could tell."""

    event: str = ""
    branch: str = ""
    action: str = ""
    ref: str = ""
    repo: str = ""
    target: str = ""
    cron: str = ""
    instance: str = ""
    paths: tuple[str, ...] | None = None


def subject(repo: RepoFacts, build: BuildFacts, instance: str = "") -> Subject:
    """What the conditions of a build are compared with."""
    return Subject(
        event=build.event,
        branch=build.target,
        action=build.action,
        ref=build.ref,
        repo=repo.slug,
        target=build.deploy_to,
        cron=build.cron,
        instance=instance,
        paths=build.paths,
    )


def match(when: When, about: Subject) -> bool:
    """Whether one of the alternatives matches, its `status` apart; none at all always does."""
    return not when or any(mismatch(one, about) is None for one in when)


def mismatch(conditions: Conditions, about: Subject) -> str | None:
    """The first property that does not match, or None. `status` is not looked at."""
    for key in _ORDER:
        condition: Condition = getattr(conditions, key)
        if condition and not allows(condition, getattr(about, key)):
            return key
    if conditions.paths and not _allows_paths(conditions.paths, about.paths):
        return "paths"
    return None


def reason(when: When, about: Subject) -> str:
    """Why nothing matches, in words; empty if something does."""
    if match(when, about):
        return ""
    keys = dict.fromkeys(key for one in when if (key := mismatch(one, about)))
    return "; ".join(f"{key} {_value(about, key)} does not match" for key in keys)


def _value(about: Subject, key: str) -> str:
    if key == "paths":
        return f"({len(about.paths or ())} changed files)"
    value = getattr(about, key)
    return f"`{value}`" if value else "(none)"


def for_trigger(when: When, default_branch: str) -> When:
    """The conditions of a `trigger`: `instance` is ignored, the default branch can be asked for.

    Triggers are read before substitution. `${CI_REPO_DEFAULT_BRANCH}` is the one exception, which
    converted Woodpecker files need; no file of the original has it.
    """
    found = (replace(one, instance=Condition()) if one.instance else one for one in when)
    return tuple(_filled(one, default_branch) for one in found)


def _filled(one: Conditions, branch: str) -> Conditions:
    return replace(one, branch=_with(one.branch, branch), ref=_with(one.ref, branch))


def _with(condition: Condition, branch: str) -> Condition:
    if not any(DEFAULT_BRANCH in text for text in condition.include + condition.exclude):
        return condition
    include = tuple(text.replace(DEFAULT_BRANCH, branch) for text in condition.include)
    exclude = tuple(text.replace(DEFAULT_BRANCH, branch) for text in condition.exclude)
    return Condition(include, exclude)


def policy(when: When, about: Subject) -> str:
    """When a step runs: always, on-success, on-failure or never. Source: reference 3.3."""
    if not when:
        return ON_SUCCESS
    found = {_policy(one.status) for one in when if mismatch(one, about) is None}
    if not found:
        return NEVER
    if ALWAYS in found or len(found) == 2:
        return ALWAYS
    return found.pop()


def _policy(status: Condition) -> str:
    if not status or not allows(status, "failure"):
        return ON_SUCCESS
    return ALWAYS if allows(status, "success") else ON_FAILURE


def stage_policy(when: When, about: Subject) -> tuple[bool, bool]:
    """Whether a stage runs on success and on failure of those before. Source: section 3.6."""
    found = [one.status for one in when if mismatch(one, about) is None] or [Condition()]
    on_success = any(allows(status, "success") for status in found)
    return on_success, any(bool(status) and allows(status, "failure") for status in found)


def allows(condition: Condition, value: str) -> bool:
    """An exclude hit is false; an include hit or no include is true."""
    if any(glob(pattern, value) for pattern in condition.exclude):
        return False
    return not condition.include or any(glob(pattern, value) for pattern in condition.include)


def _allows_paths(condition: Condition, paths: Sequence[str] | None) -> bool:
    """One changed file is enough; an unknown or empty set of them passes."""
    return not paths or any(allows(condition, path) for path in paths)


def glob(pattern: str, name: str) -> bool:
    """Whether a name matches: case-sensitive, by components between `/`; malformed: never."""
    if _SPECIAL.isdisjoint(pattern):
        return pattern == name
    if pattern.count("*") + pattern.count("{") > MAX_WILDCARDS:
        return False
    matcher = _Matcher()
    try:
        return matcher.path(tuple(_split(pattern, "/")), tuple(_split(name, "/")))
    except _MalformedError:
        return False


class _MalformedError(Exception):
    pass


def _split(text: str, separator: str) -> list[str]:
    """Split at a separator that no backslash escapes."""
    parts, start, position = [], 0, 0
    while (position := text.find(separator, position)) >= 0:
        if position == start or text[position - 1] != "\\":
            parts.append(text[start:position])
            start = position + 1
        position += 1
    parts.append(text[start:])
    return parts


def _find(text: str, char: str) -> int:
    """The first `char` that no backslash escapes, or -1."""
    position = text.find(char)
    while position > 0 and text[position - 1] == "\\":
        position = text.find(char, position + 1)
    return position


class _Matcher:
    """One match, with what is known so far: the work grows with the product of the lengths."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], bool] = {}
        self.paths: dict[tuple[int, int], bool] = {}

    def path(self, patterns: tuple[str, ...], names: tuple[str, ...]) -> bool:
        key = (len(patterns), len(names))
        if key not in self.paths:
            self.paths[key] = self._path(patterns, names)
        return self.paths[key]

    def _path(self, patterns: tuple[str, ...], names: tuple[str, ...]) -> bool:
        for i, pattern in enumerate(patterns):
            if pattern == "**" and i < len(names):
                rest = patterns[i + 1 :]
                return not rest or any(self.path(rest, names[j:]) for j in range(i, len(names)))
            if i >= len(names) or not self.component(pattern, names[i]):
                return False
        return len(patterns) == len(names)

    def component(self, pattern: str, name: str) -> bool:
        key = (pattern, name)
        if key not in self.known:
            self.known[key] = self._component(pattern, name)
        return self.known[key]

    def _component(self, pattern: str, name: str) -> bool:
        if not pattern or not name:
            return pattern == name or (not name and pattern in _STARS)
        p, n = 0, 0
        while p < len(pattern) and n < len(name):
            char = pattern[p]
            if char == "*":
                return self._star(pattern[p + 1 :], name[n:])
            if char == "{":
                return self._options(pattern[p + 1 :], name[n:])
            p = _one(pattern, p, name[n])
            if p < 0:
                return False
            n += 1
        return n >= len(name) and (p >= len(pattern) or pattern[p:] in _STARS)

    def _star(self, rest: str, name: str) -> bool:
        if not rest:
            return True
        for i in range(len(name)):
            try:
                if self.component(rest, name[i:]):
                    return True
            except _MalformedError:
                continue
        return False

    def _options(self, pattern: str, name: str) -> bool:
        end = _find(pattern, "}")
        if end < 0:
            raise _MalformedError
        rest = pattern[end + 1 :]
        return any(self.component(option + rest, name) for option in _split(pattern[:end], ","))


def _one(pattern: str, at: int, char: str) -> int:
    """The place after the part of `pattern` that matches one character, or -1."""
    first = pattern[at]
    if first == "\\":
        if at + 1 >= len(pattern):
            raise _MalformedError
        return at + 2 if pattern[at + 1] == char else -1
    if first == "[":
        end = _find(pattern[at + 1 :], "]")
        if end < 0:
            raise _MalformedError
        return at + end + 2 if _in_class(pattern[at + 1 : at + 1 + end], char) else -1
    return at + 1 if first in ("?", char) else -1


def _in_class(text: str, char: str) -> bool:
    negated = text.startswith("^")
    chars = list(text[1:] if negated else text)
    if not text:
        raise _MalformedError
    found = False
    while chars:
        low = _class_char(chars)
        high = low
        if chars and chars[0] == "-":
            chars.pop(0)
            high = _class_char(chars)
        found = found or low <= char <= high
    return found != negated


def _class_char(chars: list[str]) -> str:
    if not chars or chars[0] == "-":
        raise _MalformedError
    char = chars.pop(0)
    if char != "\\":
        return char
    if not chars:
        raise _MalformedError
    return chars.pop(0)
