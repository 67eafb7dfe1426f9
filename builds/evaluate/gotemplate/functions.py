"""The functions of templates, and how values print."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote_plus

import yaml

from builds.evaluate.errors import Failed
from pipeline.settings import go_float, json_text
from pipeline.substitute import quote

_VERB = re.compile(r"%([-+# 0]*)(\d*)(?:\.(\d*))?([a-zA-Z%])")


def truth(value: Any) -> bool:
    """Whether a value counts as true: not false, zero, nil or empty."""
    return bool(value)


def show(value: Any) -> str:
    """A value as `{{ }}` prints it."""
    return "<no value>" if value is None else text(value)


def text(value: Any) -> str:
    """A value as Go's %v prints it; nil is empty for functions that take text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return go_float(value, 21, 2, -4)
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{_inner(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(_inner, value)) + "]"
    return str(value)


def _inner(value: Any) -> str:
    return "<nil>" if value is None else text(value)


def index(value: Any, *keys: Any) -> Any:
    """The item of lists and maps; nil for a key that a map has not."""
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, (list, str)) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise Failed(f"index {key} is out of range")
            value = value[key]
        else:
            raise Failed(f"cannot index {_kind(value)} with {_kind(key)}")
    return value


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, (list, Mapping)):
        return len(value)
    raise Failed(f"len of {_kind(value)}")


def _slice(value: Any, *bounds: int) -> Any:
    if not isinstance(value, (str, list)):
        raise Failed(f"cannot slice {_kind(value)}")
    start, end = (*bounds, *(0, len(value))[len(bounds) :])[:2]
    if not 0 <= start <= end <= len(value):
        raise Failed(f"slice {start}:{end} is out of range")
    return value[start:end]


def _same(first: Any, *others: Any) -> bool:
    return any(first == other and _kind(first) == _kind(other) for other in others)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def check(first: Any, second: Any) -> bool:
        if _kind(first) != _kind(second) or not isinstance(first, (int, float, str)):
            raise Failed(f"cannot compare {_kind(first)} with {_kind(second)}")
        return compare(first, second)

    return check


def _kind(value: Any) -> str:
    if value is None:
        return "nil"
    for kind, name in ((bool, "bool"), ((int, float), "number"), (str, "string"), (list, "list")):
        if isinstance(value, kind):
            return name
    return "map"


def _print(*values: Any) -> str:
    out = ""
    for before, value in zip((None, *values), values, strict=False):
        apart = out and not isinstance(before, str) and not isinstance(value, str)
        out += (" " if apart else "") + _inner(value)
    return out


def _printf(form: str, *values: Any) -> str:
    rest = list(values)

    def fill(found: re.Match[str]) -> str:
        flags, width, precision, verb = found.groups()
        if verb == "%":
            return "%"
        if not rest:
            return f"%!{verb}(MISSING)"
        body = _formatted(verb, precision, rest.pop(0))
        if "0" in flags and "-" not in flags and verb not in "sqv":
            return body.zfill(int(width or 0))
        size = min(int(width or 0), 10_000)
        return body.ljust(size) if "-" in flags else body.rjust(size)

    done = _VERB.sub(fill, form)
    extra = ", ".join(f"{_kind(value)}={_inner(value)}" for value in rest)
    return done + (f"%!(EXTRA {extra})" if rest else "")


def _formatted(verb: str, precision: str | None, value: Any) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if verb in "sv":
        shown = _inner(value)
        return shown[: int(precision)] if precision and verb == "s" else shown
    if verb == "q":
        return quote(text(value))
    if verb == "t" and isinstance(value, bool):
        return text(value)
    if verb in "dxXobc" and isinstance(value, int) and number:
        return format(value, verb)
    if verb in "feEgG" and number:
        return format(float(value), f".{min(int(precision or 6), 100)}{verb}")
    return f"%!{verb}({_kind(value)}={_inner(value)})"


def _split(value: Any, separator: str, count: int = -1) -> list[str]:
    whole = text(value)
    if not separator:
        return list(whole)
    return whole.split(separator, -1 if count < 0 else max(count - 1, 0))


def _indent(value: Any, count: int) -> str:
    pad = " " * count
    return pad + text(value).replace("\n", "\n" + pad)


def _to_yaml(value: Any) -> str:
    done = yaml.safe_dump(value, allow_unicode=True, default_flow_style=False)
    return done.removesuffix("\n").removesuffix("\n...")


def _from_yaml(value: Any) -> Any:
    try:
        return yaml.safe_load(text(value))
    except yaml.YAMLError as fault:
        return {"Error": str(fault)}


def _decode(value: Any) -> str:
    try:
        return base64.b64decode(text(value), validate=True).decode("utf-8", "replace")
    except ValueError as fault:
        raise Failed("base64Decode of what is not base64") from fault


def _digest(name: str) -> Callable[[Any], str]:
    return lambda value: hashlib.new(name, text(value).encode(), usedforsecurity=False).hexdigest()


#: `and` and `or` are missing here: they evaluate no more than they must.
FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    # Go's
    "eq": _same,
    "ne": lambda first, second: not _same(first, second),
    "lt": _ordered(lambda first, second: first < second),
    "le": _ordered(lambda first, second: first <= second),
    "gt": _ordered(lambda first, second: first > second),
    "ge": _ordered(lambda first, second: first >= second),
    "not": lambda value: not truth(value),
    "len": _length,
    "index": index,
    "slice": _slice,
    "print": _print,
    "println": lambda *values: " ".join(map(_inner, values)) + "\n",
    "printf": _printf,
    "html": lambda *values: html.escape(_print(*values)),
    "urlquery": lambda *values: quote_plus(_print(*values)),
    # Drone's
    "append": lambda value, more: text(value) + text(more),
    "prepend": lambda value, more: text(more) + text(value),
    "base64Encode": lambda value: base64.b64encode(text(value).encode()).decode(),
    "base64Decode": _decode,
    "chomp": lambda value: text(value).rstrip("\r\n"),
    "contains": lambda value, part: text(part) in text(value),
    "containsAny": lambda value, chars: any(char in text(value) for char in text(chars)),
    "htmlEscape": lambda value: html.escape(text(value)),
    "htmlUnescape": lambda value: html.unescape(text(value)),
    "hasPrefix": lambda value, part: text(value).startswith(part),
    "hasSuffix": lambda value, part: text(value).endswith(part),
    "indent": _indent,
    "nindent": lambda value, count: "\n" + _indent(value, count),
    "jsonify": json_text,
    "lower": lambda value: text(value).lower(),
    "upper": lambda value: text(value).upper(),
    "title": lambda value: text(value).upper(),
    "md5": _digest("md5"),
    "sha1": _digest("sha1"),
    "sha256": _digest("sha256"),
    "padLeft": lambda value, pad, count: text(pad) * count + text(value),
    "padRight": lambda value, pad, count: text(value) + text(pad) * count,
    "replace": lambda value, old, new: text(value).replace(text(old), text(new)),
    "split": _split,
    "splitn": _split,
    "trim": lambda value: text(value).strip(),
    "trimLeft": lambda value, chars: text(value).lstrip(chars),
    "trimRight": lambda value, chars: text(value).rstrip(chars),
    "trimPrefix": lambda value, part: text(value).removeprefix(part),
    "trimSuffix": lambda value, part: text(value).removesuffix(part),
    "urlize": lambda value: quote_plus(text(value).strip().replace(" ", "-")),
    "toYaml": _to_yaml,
    "fromYaml": _from_yaml,
}


def call(name: str, values: Sequence[Any]) -> Any:
    """Call a function by its name.

    Raises: Failed for one that is not there, or values it cannot take.
    """
    function = FUNCTIONS.get(name)
    if function is None:
        raise Failed(f"there is no function {name}")
    try:
        return function(*values)
    except (TypeError, ValueError, AttributeError, KeyError) as fault:
        kinds = ", ".join(_kind(value) for value in values)
        raise Failed(f"{name} cannot take ({kinds})") from fault
