"""Glob patterns of agent options: `*` stops at a slash, `**` does not, `?`, `[a-z]`, `{a,b}`."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable


def matches(text: str, pattern: str) -> bool:
    """Whether the whole of `text` matches. A malformed pattern matches only itself."""
    return _compiled(pattern).fullmatch(text) is not None


def matches_any(text: str, patterns: Iterable[str]) -> bool:
    """Whether one of `patterns` matches."""
    return any(matches(text, pattern) for pattern in patterns)


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(_translate(pattern), re.DOTALL)
    except re.error:
        return re.compile(re.escape(pattern))


def _translate(pattern: str) -> str:
    """The regular expression of a glob."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]*]|\{[^}]*}|\\.)", pattern)
    return "".join(_part(part) for part in parts)


def _part(part: str) -> str:
    fixed = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if part in fixed:
        return fixed[part]
    if part.startswith("[") and len(part) > 2:
        return part
    if part.startswith("{"):
        return "(?:" + "|".join(_translate(one) for one in part[1:-1].split(",")) + ")"
    if part.startswith("\\"):
        return re.escape(part[1:])
    return re.escape(part)
