"""Woodpecker's `when.evaluate`: expressions that say no more than conditions do, as conditions.

An expression becomes alternatives, each a number of tests of which all must hold. What has no equal
among the conditions is refused by name. Source: expr-lang, and Woodpecker's `CI_` variables.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeline.conditions import glob
from pipeline.convert.parts import EVENTS

MAX_ALTERNATIVES: Final = 50
MAX_TOKENS: Final = 500
MAX_NESTING: Final = 30

DEFAULT_BRANCH: Final = "CI_REPO_DEFAULT_BRANCH"
#: The condition that each variable is compared by, and what stands before and after its value.
_KEYS: Final[Mapping[str, tuple[str, str, str]]] = {
    "CI_PIPELINE_EVENT": ("event", "", ""),
    "CI_COMMIT_BRANCH": ("branch", "", ""),
    "CI_COMMIT_REF": ("ref", "", ""),
    "CI_COMMIT_TAG": ("ref", "refs/tags/", ""),
    "CI_REPO": ("repo", "", ""),
    "CI_REPO_OWNER": ("repo", "", "/*"),
    "CI_REPO_NAME": ("repo", "*/", ""),
    "CI_PIPELINE_DEPLOY_TARGET": ("target", "", ""),
}
_EVENTS: Final = (
    "push", "pull_request", "tag", "deployment", "cron", "manual", "release",
    "pull_request_closed", "pull_request_metadata",
)  # fmt: skip
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)
    |(?P<name>[A-Za-z_]\w*)|(?P<sign>&&|\|\||==|!=|[!()\[\],])|(?P<other>\S))""",
    re.VERBOSE,
)
_WORDS: Final = ("in", "contains", "startsWith", "endsWith", "matches")
_PLAIN: Final = re.compile(
    r"(\^?)(?:\.\*)?((?:[\w/@#%&=~:, -]|\\[^\w])*)((?:\.\*)?)(\$?)", re.ASCII
)
_SPECIAL: Final = re.compile(r"([*?\[{\\])")


class Refused(Exception):
    """An expression, or a part of it, without an equal here; the message names it."""


@dataclass(frozen=True, slots=True)
class Test:
    """That a property matches one of some globs, or, `negated`, none of them."""

    key: str
    globs: tuple[str, ...]
    negated: bool = False


#: All of them must hold.
Alternative = tuple[Test, ...]


@dataclass(frozen=True, slots=True)
class _Node:
    """`or` and `and` of parts, or a leaf: a test, or a truth value as the number of its ways."""

    sign: str
    parts: tuple[Any, ...]


def alternatives(text: str) -> tuple[Alternative, ...]:
    """The alternatives of an expression; none if it is never true.

    Raises: Refused.
    """
    return tuple(_ways(_Parser(text).whole(), negated=False))


def join(base: Mapping[str, Any], tests: Alternative) -> dict[str, Any] | None:
    """Conditions that must hold together with tests; None if they never do.

    Raises: Refused for what one condition cannot say.
    """
    found = dict(base)
    for test in tests:
        include, exclude = _sides(found.get(test.key, []))
        if test.negated:
            exclude = [*exclude, *test.globs]
        else:
            include = _both(include, test.globs, test.key)
            if not include:
                return None
        found[test.key] = include if not exclude else {"include": include, "exclude": exclude}
        if not include and exclude:
            found[test.key] = {"exclude": exclude}
    return found


def _sides(value: Any) -> tuple[list[str], list[str]]:
    if isinstance(value, list):
        return value, []
    return value.get("include", []), value.get("exclude", [])


def _both(include: Sequence[str], globs: Sequence[str], key: str) -> list[str]:
    """Globs for what matches both lists, of which one must be without patterns."""
    if not include or list(include) == list(globs):
        return list(globs)
    for plain, patterns in ((include, globs), (globs, include)):
        if not any(_SPECIAL.search(one) for one in plain):
            return [one for one in plain if any(glob(pattern, one) for pattern in patterns)]
    raise Refused(f"no glob says what two patterns for `{key}` do at once")


def _ways(node: _Node, *, negated: bool) -> Iterator[Alternative]:
    if node.sign == "test":
        yield (replace(node.parts[0], negated=node.parts[0].negated != negated),)
    elif node.sign == "truth":
        yield from [()] if node.parts[0] != negated else []
    elif node.sign == "not":
        yield from _ways(node.parts[0], negated=not negated)
    else:
        parts = [_ways(part, negated=negated) for part in node.parts]
        if (node.sign == "or") != negated:
            yield from _bounded(itertools.chain.from_iterable(parts))
        else:
            lists = [list(part) for part in parts]
            product = itertools.product(*lists)
            yield from _bounded(tuple(itertools.chain(*one)) for one in product)


def _bounded(ways: Iterator[Alternative]) -> Iterator[Alternative]:
    for count, way in enumerate(ways):
        if count == MAX_ALTERNATIVES:
            raise Refused(f"it has more than {MAX_ALTERNATIVES} alternatives")
        yield way


class _Parser:
    """Recursive descent: or, and, not, comparison."""

    def __init__(self, text: str) -> None:
        self.tokens = [(found.lastgroup or "", found[0].strip()) for found in _TOKEN.finditer(text)]
        self.place = 0
        self.depth = 0
        if len(self.tokens) > MAX_TOKENS:
            raise Refused(f"it has more than {MAX_TOKENS} words")

    def whole(self) -> _Node:
        node = self._or()
        if self.place < len(self.tokens):
            raise self._stray()
        return node

    def _stray(self) -> Refused:
        return Refused(
            f"`{self._peek()[:40]}` is not understood" if self._peek() else "it ends early"
        )

    def _peek(self) -> str:
        return self.tokens[self.place][1] if self.place < len(self.tokens) else ""

    def _take(self, *signs: str) -> bool:
        if self._peek() in signs:
            self.place += 1
            return True
        return False

    def _or(self) -> _Node:
        return self._several("or", self._and, "||", "or")

    def _and(self) -> _Node:
        return self._several("and", self._not, "&&", "and")

    def _several(self, sign: str, part: Callable[[], _Node], *signs: str) -> _Node:
        parts = [part()]
        while self._take(*signs):
            parts.append(part())
        return parts[0] if len(parts) == 1 else _Node(sign, tuple(parts))

    def _not(self) -> _Node:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise Refused("it is nested too deeply")
        if self._take("!", "not"):
            if self._peek() not in ("(", "!", "not", "true", "false"):
                raise Refused("`not` needs brackets after it")
            node = _Node("not", (self._not(),))
        elif self._take("("):
            node = self._or()
            self._expect(")")
        else:
            node = self._comparison()
        self.depth -= 1
        return node

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise self._stray()

    def _comparison(self) -> _Node:
        if self._peek() in ("true", "false"):
            return _Node("truth", (self._take("true") or not self._take("false"),))
        left = self._operand()
        negated = self._take("not")
        sign = self._peek()
        if sign not in ("==", "!=", *_WORDS) or (negated and sign not in _WORDS):
            alone = self._peek() in ("", ")", "&&", "||", "and", "or")
            raise Refused(f"`{left[1][:40]}` alone says nothing") if alone else self._stray()
        self.place += 1
        right = self._list() if sign == "in" else [self._operand()]
        if sign in ("==", "!=") and left[0] == "text":
            left, right = right[0], [left]
        test = _test(left, "==" if sign in ("!=", "in") else sign, right)
        negated = test.negated != (negated or sign == "!=")
        return _Node("test", (replace(test, negated=negated),))

    def _list(self) -> list[tuple[str, str]]:
        self._expect("[")
        found = [self._operand()]
        while self._take(","):
            found.append(self._operand())
        self._expect("]")
        return found

    def _operand(self) -> tuple[str, str]:
        kind, token = self.tokens[self.place] if self.place < len(self.tokens) else ("", "")
        if kind not in ("text", "name"):
            raise self._stray()
        self.place += 1
        if kind == "name":
            return kind, token
        return kind, token[1:-1] if token[0] == "`" else re.sub(r"\\(.)", r"\1", token[1:-1])


def _test(left: tuple[str, str], sign: str, right: Sequence[tuple[str, str]]) -> Test:
    if left[0] != "name" or left[1] not in _KEYS:
        raise Refused(f"`{left[1][:40]}` is nothing that conditions know")
    key, before, after = _KEYS[left[1]]
    if key == "event":
        return Test(key, _events(sign, [_text(one) for one in right]))
    globs: list[str] = []
    for operand in right:
        if operand == ("name", DEFAULT_BRANCH) and left[1] == "CI_COMMIT_BRANCH" and sign == "==":
            globs.append(f"${{{DEFAULT_BRANCH}}}")
        else:
            globs += [f"{before}{one}{after}" for one in _globs(sign, _text(operand))]
    if left[1] == "CI_COMMIT_TAG" and sign == "==" and before in globs:
        return _untagged(globs, before)
    return Test(key, tuple(globs))


def _untagged(globs: Sequence[str], before: str) -> Test:
    """That a build is for no tag: its variable is empty."""
    if len(globs) > 1:
        raise Refused("the empty text is no tag")
    return Test("ref", (f"{before}**",), negated=True)


def _text(operand: tuple[str, str]) -> str:
    if operand[0] != "text":
        raise Refused(f"`{operand[1][:40]}` is no text to compare with")
    return operand[1]


def _events(sign: str, values: Sequence[str]) -> tuple[str, ...]:
    """The events for which a comparison holds, under their names here."""
    holds: Mapping[str, Callable[[str, str], bool]] = {
        "==": lambda event, value: event == value,
        "contains": lambda event, value: value in event,
        "startsWith": lambda event, value: event.startswith(value),
        "endsWith": lambda event, value: event.endswith(value),
        "matches": lambda event, value: any(glob(one, event) for one in _globs("matches", value)),
    }
    found = [one for one in _EVENTS if any(holds[sign](one, value) for value in values)]
    return tuple(EVENTS.get(one, one) for one in found) or ("none",)


def _globs(sign: str, value: str) -> list[str]:
    """Globs for what a comparison with a text lets through; `*` alone stops at a slash."""
    plain = _SPECIAL.sub(r"\\\1", value)
    if sign == "==":
        return [plain]
    if sign == "startsWith":
        return _open(plain, "", "**")
    if sign == "endsWith":
        return _open(plain, "**", "")
    if sign == "contains":
        return _open(plain, "**", "**")
    found = _PLAIN.fullmatch(value)
    if found is None:
        raise Refused(f"no glob says what `{value[:60]}` does")
    start, body, rest, end = found.groups()
    open_start = not start or value.startswith("^.*")
    plain = _SPECIAL.sub(r"\\\1", re.sub(r"\\(.)", r"\1", body))
    return _open(plain, "**" if open_start else "", "**" if rest or not end else "")


def _open(plain: str, before: str, after: str) -> list[str]:
    """Globs for a text with anything before or after it, slashes too."""
    starts = ["*", "**/*"] if before else [""]
    ends = ["*", "*/**"] if after else [""]
    return [f"{start}{plain}{end}" for start in starts for end in ends]
