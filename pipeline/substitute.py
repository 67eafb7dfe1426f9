"""Replace `${}` expressions in the whole text of a pipeline file, comments included.

Source: drone/envsubst 1.0.3 as the runners use it (reference: pipeline format, section 5). On
purpose not copied: `\\\\` and `\\/` outside expressions stay as they are (version 2 mended that),
and operands may mix text and nested expressions in every form, not only in defaults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from pipeline.errors import PipelineError, Problem

#: The longest text that substitution may produce.
MAX_BYTES: Final = 8 * 1024 * 1024
MAX_NESTING: Final = 32
MAX_PROBLEMS: Final = 100

_START = re.compile(r"\$(?:\$|\{(?:(\w+)\})?)")
_NAME = re.compile(r"\w+")
_OPERATOR = re.compile(r":[=\-?+]|=|:|\^\^?|,,?|//|/#|/%|/|##?|%%?")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_ESCAPES = {"\n": "n", "\t": "t", "\r": "r", "\a": "a", "\b": "b", "\f": "f", "\v": "v"}
_ESCAPES |= {'"': '"', "\\": "\\"}

Token = Callable[[str], bool] | None


class _Bad(Exception):
    """A bad expression; `resume` is where reading can go on, or -1 for nowhere."""

    def __init__(self, offset: int, message: str, resume: int) -> None:
        super().__init__(message)
        self.offset = offset
        self.resume = resume


def substitute(text: str, values: Mapping[str, str], file: str = ".drone.yml") -> str:
    """Replace every `${…}` of `text` by what `values` say, and `$$` by `$`.

    An unknown name is empty; a value with a newline is inserted quoted as Go does. `$NAME` and
    `$(…)` are left to the shell.

    Raises: PipelineError with every bad expression, its line and column.
    """
    if "$" not in text:
        return text
    parser = _Parser(text, values)
    out: list[str] = []
    problems: list[Problem] = []
    position = size = 0
    while found := _START.search(text, position):
        out.append(text[position : found.start()])
        try:
            value, position = parser.after(found)
        except _Bad as fault:
            problems.append(_problem(text, fault, file))
            if fault.resume < 0 or len(problems) == MAX_PROBLEMS:
                break
            position = fault.resume
            continue
        out.append(value)
        size += len(value)
        if size > MAX_BYTES:
            problems.append(
                Problem("substitute:size", "the substituted text is too long", file=file)
            )
            break
    if problems:
        raise PipelineError(problems)
    out.append(text[position:])
    return "".join(out)


def quote(text: str) -> str:
    """Put `text` in double quotes, escaped. Source: Go's strconv.Quote."""
    return '"' + "".join(map(_quoted, text)) + '"'


def _quoted(char: str) -> str:
    if char in _ESCAPES:
        return "\\" + _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _problem(text: str, fault: _Bad, file: str) -> Problem:
    line = text.count("\n", 0, fault.offset) + 1
    column = fault.offset - text.rfind("\n", 0, fault.offset)
    message = f"bad substitution: {fault}; write $${{ for a ${{ that the shell shall see"
    return Problem("substitute:bad", message, line, column, file=file)


class _Parser:
    """Evaluates expressions while it reads them."""

    def __init__(self, text: str, values: Mapping[str, str]) -> None:
        self._text = text
        self._values = values

    def value(self, name: str) -> str:
        found = self._values.get(name, "")
        return quote(found) if "\n" in found else found

    def after(self, found: re.Match[str], depth: int = 1) -> tuple[str, int]:
        """The value of what begins at a match of `_START`, and where it ends."""
        if found.lastindex:
            return self.value(found[1]), found.end()
        if found.end() - found.start() == 2 and found[0] == "$$":
            return "$", found.end()
        if depth > MAX_NESTING:
            raise _Bad(found.start(), "expressions nested too deeply", found.end())
        return self._expression(found.start(), depth)

    def _expression(self, start: int, depth: int) -> tuple[str, int]:
        text, position = self._text, start + 2
        if text.startswith("#", position):
            name, position = self._name(start, position + 1)
            return str(len(self.value(name).encode())), self._close(start, position)
        name, position = self._name(start, position)
        operator = _OPERATOR.match(text, position)
        if not operator:
            return self.value(name), self._close(start, position)
        return self._apply(start, self.value(name), operator, depth)

    def _apply(
        self, start: int, value: str, operator: re.Match[str], depth: int
    ) -> tuple[str, int]:
        sign, position = operator[0], operator.end()
        if sign in _CASES:
            return _CASES[sign](value), self._close(start, position)
        if sign in ("=", ":=", ":-", ":?", ":+"):
            default, position = self._operand(start, position, "}", depth)
            return value or default, position + 1
        if sign == ":":
            return self._substring(start, value, position, depth)
        if sign[0] == "/":
            return self._replace(start, value, operator, depth)
        pattern, position = self._operand(start, position, "}", depth)
        if not pattern:
            raise _Bad(start, f"{sign} needs a pattern", position)
        return _strip(value, sign, pattern), position + 1

    def _substring(self, start: int, value: str, position: int, depth: int) -> tuple[str, int]:
        first, position = self._operand(start, position, ":}", depth)
        if not first:
            raise _Bad(start, "a position is missing after ':'", position)
        if self._text[position] == "}":
            return _slice(value, first, None), position + 1
        length, position = self._operand(start, position + 1, "}", depth)
        if not length:
            raise _Bad(start, "a length is missing after ':'", position)
        if _INTEGER.fullmatch(length) and int(length[:20]) < 0:
            raise _Bad(start, "a length must not be negative", position)
        return _slice(value, first, length), position + 1

    def _replace(
        self, start: int, value: str, operator: re.Match[str], depth: int
    ) -> tuple[str, int]:
        old, position = self._operand(start, operator.end(), "/}", depth, escapes=True)
        if self._text[position] != "/":
            raise _Bad(start, "replacing needs a second '/'", position)
        if not old:
            raise _Bad(start, "replacing needs something to look for", position)
        new, position = self._operand(start, position + 1, "}", depth, escapes=True)
        if len(value) + value.count(old) * len(new) > MAX_BYTES:
            raise _Bad(start, "the result is too long", position)
        return _replaced(value, operator[0], old, new), position + 1

    def _operand(
        self, start: int, position: int, stops: str, depth: int, *, escapes: bool = False
    ) -> tuple[str, int]:
        """The value of an operand and the offset of the character of `stops` that ends it."""
        text, parts = self._text, []
        special = _special(stops, escapes)
        while found := special.search(text, position):
            parts.append(text[position : found.start()])
            char = text[found.start()]
            if char in stops:
                return "".join(parts), found.start()
            nested = _START.match(text, found.start())
            if char == "\\":
                value, position = text[found.start() + 1], found.end()
            elif nested:
                value, position = self.after(nested, depth + 1)
            else:
                value, position = char, found.start() + 1
            parts.append(value)
        raise _Bad(start, "no closing '}'", -1)

    def _name(self, start: int, position: int) -> tuple[str, int]:
        found = _NAME.match(self._text, position)
        if not found:
            raise _Bad(start, "a name (letters, digits, _) is missing", position)
        return found[0], found.end()

    def _close(self, start: int, position: int) -> int:
        text = self._text
        if text.startswith("}", position):
            return position + 1
        if position >= len(text):
            raise _Bad(start, "no closing '}'", -1)
        raise _Bad(start, f"unexpected {text[position]!r} where '}}' should be", position)


def _special(stops: str, escapes: bool) -> re.Pattern[str]:
    return re.compile(r"[$" + re.escape(stops) + "]" + (r"|\\[/\\]" if escapes else ""))


def _first(change: Callable[[str], str]) -> Callable[[str], str]:
    return lambda value: change(value[:1]) + value[1:]


_CASES: Final[Mapping[str, Callable[[str], str]]] = {
    "^": _first(str.upper),
    "^^": str.upper,
    ",": _first(str.lower),
    ",,": str.lower,
}


def _slice(value: str, first: str, length: str | None) -> str:
    """A substring by bytes; `value` itself where a number is none."""
    if not _INTEGER.fullmatch(first) or (length is not None and not _INTEGER.fullmatch(length)):
        return value
    data = value.encode()
    start = int(first[:20])
    if start < 0:
        start = max(len(data) + start, 0)
    end = len(data) if length is None else start + int(length[:20])
    return data[start:end].decode(errors="ignore")


def _replaced(value: str, sign: str, old: str, new: str) -> str:
    if sign == "/#":
        return new + value[len(old) :] if value.startswith(old) else value
    if sign == "/%":
        return value[: -len(old)] + new if value.endswith(old) else value
    return value.replace(old, new, -1 if sign == "//" else 1)


def _strip(value: str, sign: str, pattern: str) -> str:
    """`value` without the shortest (`#`, `%`) or longest (`##`, `%%`) prefix or suffix."""
    suffix = sign[0] == "%"
    tokens = None if suffix and "[" in pattern else _tokens(pattern)
    if tokens is None:
        return value
    if suffix:
        tokens.reverse()
    lengths = list(_matches(tokens, reversed(value) if suffix else value)) or [0]
    length = lengths[-1] if len(sign) == 2 else lengths[0]
    return value[: len(value) - length] if suffix else value[length:]


def _matches(tokens: list[Token], chars: Iterable[str]) -> Iterable[int]:
    """Lengths above 0 of the beginnings of `chars` that `tokens` match, shortest first.

    All ways to match advance together, so no pattern takes long.
    """
    states = _closure({0}, tokens)
    for length, char in enumerate(chars, start=1):
        moved = set()
        for state in states:
            if state < len(tokens):
                token = tokens[state]
                if token is None:
                    moved.add(state)
                elif token(char):
                    moved.add(state + 1)
        if not moved:
            return
        states = _closure(moved, tokens)
        if len(tokens) in states:
            yield length


def _closure(states: set[int], tokens: list[Token]) -> set[int]:
    """`states` and what they reach by letting `*` match nothing."""
    reached = set(states)
    for state in states:
        following = state
        while following < len(tokens) and tokens[following] is None:
            following += 1
            reached.add(following)
    return reached


def _tokens(pattern: str) -> list[Token] | None:
    """One test per character, None for `*`; None instead of a list for a malformed pattern."""
    tokens: list[Token] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*":
            tokens.append(None)
        elif char == "?":
            tokens.append(lambda _char: True)
        elif char == "[":
            found = re.compile(r"\^?(?:\\.|[^\]\\])+\]", re.DOTALL).match(pattern, position)
            if not found:
                return None
            tokens.append(_class(found[0][:-1]))
            position = found.end()
        else:
            if char == "\\":
                if position == len(pattern):
                    return None
                char = pattern[position]
                position += 1
            tokens.append(_same(char))
    return tokens


def _same(wanted: str) -> Token:
    return lambda char: char == wanted


def _class(body: str) -> Token:
    negated = body.startswith("^")
    ranges = [
        (low[-1], (high or low)[-1])
        for low, high in re.findall(r"(\\.|[^\\])(?:-(\\.|[^\\]))?", body[negated:], re.DOTALL)
    ]
    return lambda char: any(low <= char <= high for low, high in ranges) != negated
