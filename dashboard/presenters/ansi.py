"""Colours in a log line: terminal escapes to spans with classes, everything else dropped.

`static/dashboard/ansi.js` does the same in the browser; both are tested with
tests/dashboard/ansi_cases.json. Colours beyond the 16 of a terminal become the nearest of them, so
that they stay readable on our background and need no inline style. State ends with the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"\x1b\[(?P<args>[0-?]*)[ -/]*(?P<final>[@-~])"  # CSI
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: titles, links
    r"|\x1b[ -/]+[0-~]?"  # character sets
    r"|\x1b[0-~]?"  # other escapes
    r"|[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f]"  # control characters but the tab
)
_ON = {1: "b", 2: "d", 3: "i", 4: "u", 7: "r", 9: "s"}
_OFF = {22: "bd", 23: "i", 24: "u", 27: "r", 29: "s"}
_ORDER = "bdius"


@dataclass(frozen=True, slots=True)
class Span:
    """Text in one style; `classes` is what goes into the class attribute, empty for plain text."""

    text: str
    classes: str


@dataclass(slots=True)
class _Style:
    flags: str = ""
    fore: int | None = None
    back: int | None = None

    def classes(self) -> str:
        words = [flag for flag in _ORDER if flag in self.flags]
        fore, back = self.fore, self.back
        if "r" in self.flags:
            if fore is None and back is None:
                words.append("r")
            fore, back = (15 if back is None and fore is not None else back), fore
        if fore is not None:
            words.append(f"f{fore}")
        if back is not None:
            words.append(f"g{back}")
        return " ".join(words)


def spans(line: str) -> list[Span]:
    """Split a line into styled spans. A carriage return starts the line over, as on a terminal."""
    line = line.rstrip("\r").rpartition("\r")[2]
    found: list[Span] = []
    for text, classes in _walk(line):
        if found and found[-1].classes == classes:
            found[-1] = Span(found[-1].text + text, classes)
        else:
            found.append(Span(text, classes))
    return found


def plain(line: str) -> str:
    """The line as it reads, without escapes."""
    return "".join(span.text for span in spans(line))


def _walk(line: str) -> Iterator[tuple[str, str]]:
    style, at = _Style(), 0
    for token in _TOKEN.finditer(line):
        if token.start() > at:
            yield line[at : token.start()], style.classes()
        at = token.end()
        if token["final"] == "m":
            _apply(style, token["args"])
    if at < len(line):
        yield line[at:], style.classes()


def _apply(style: _Style, args: str) -> None:
    codes = [int(part) if part.isdigit() else 0 for part in re.split("[;:]", args)]
    while codes:
        code = codes.pop(0)
        if code == 0:
            style.flags, style.fore, style.back = "", None, None
        elif code in _ON:
            style.flags += _ON[code]
        elif code in _OFF:
            style.flags = "".join(flag for flag in style.flags if flag not in _OFF[code])
        else:
            _colour(style, code, codes)


def _colour(style: _Style, code: int, rest: list[int]) -> None:
    """Set a colour; takes the arguments of 38 and 48 from `rest`."""
    if code in (38, 48):
        value: int | None = _extended(rest)
    elif 30 <= code <= 37 or 40 <= code <= 47:
        value = code % 10
    elif 90 <= code <= 97 or 100 <= code <= 107:
        value = 8 + code % 10
    elif code in (39, 49):
        value = None
    else:
        return
    if code in (48, 49) or 40 <= code <= 47 or code >= 100:
        style.back = value
    else:
        style.fore = value


def _extended(rest: list[int]) -> int | None:
    mode = rest.pop(0) if rest else 0
    if mode == 5 and rest:
        return _from_256(rest.pop(0))
    if mode == 2 and len(rest) >= 3:
        red, green, blue = (min(5, (rest.pop(0) + 25) // 51) for _ in range(3))
        return _nearest(red, green, blue)
    rest.clear()
    return None


def _from_256(number: int) -> int:
    if number < 16:
        return number
    if number >= 232:
        return (0, 8, 7, 15)[min(3, (number - 232) // 6)]
    cube = number - 16
    return _nearest(cube // 36, cube // 6 % 6, cube % 6)


def _nearest(red: int, green: int, blue: int) -> int:
    """One of 16 for a colour given in sixths: its hue by the strong channels, bright from 4 on."""
    most, least = max(red, green, blue), min(red, green, blue)
    if most - least <= 1:
        return (0, 8, 8, 7, 7, 15)[most]
    strong = ((part - least) * 5 >= (most - least) * 2 for part in (red, green, blue))
    bits = sum(bit for bit, is_strong in zip((1, 2, 4), strong, strict=True) if is_strong)
    return bits + (8 if most >= 4 else 0)
