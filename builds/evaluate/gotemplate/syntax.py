"""Read a template: text and actions to a tree."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from builds.evaluate.errors import Failed

MAX_NESTING: Final = 100

_TOKEN = re.compile(
    r"""(?P<end>(?:\s+-)?\}\})
    |(?P<space>\s+)
    |(?P<text>"(?:\\.|[^"\\\n])*"|`[^`]*`|'(?:\\.|[^'\\\n])+')
    |(?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+))
    |(?P<field>\.[^\W\d]\w*)
    |(?P<variable>\$\w*)
    |(?P<word>[^\W\d]\w*)
    |(?P<sign>:=|[=|(),.])""",
    re.VERBOSE,
)
_OPEN = re.compile(r"\{\{(-(?=\s))?")
_COMMENT = re.compile(r"\s*/\*.*?\*/((?:\s+-)?)\}\}", re.DOTALL)
_WORDS: Final = {"true": True, "false": False, "nil": None}
_BLOCKS: Final = ("if", "with", "range")


@dataclass(frozen=True, slots=True)
class Place:
    line: int
    column: int

    def failed(self, message: str) -> Failed:
        return Failed(message, self.line, self.column)


@dataclass(frozen=True, slots=True)
class Literal:
    value: Any


@dataclass(frozen=True, slots=True)
class Variable:
    name: str


@dataclass(frozen=True, slots=True)
class Function:
    name: str


@dataclass(frozen=True, slots=True)
class Chain:
    """Fields of a value; without a base they are fields of dot."""

    base: Operand | None
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands, each fed the result of the one before; `names` get the last result."""

    place: Place
    commands: tuple[tuple[Operand, ...], ...]
    names: tuple[str, ...] = ()
    declares: bool = False


Operand = Literal | Variable | Function | Chain | Pipe


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Branch:
    """`word` is if, with or range."""

    word: str
    pipe: Pipe
    then: tuple[Node, ...]
    otherwise: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Use:
    """The output of another template of the same file."""

    place: Place
    name: str
    pipe: Pipe | None


@dataclass(frozen=True, slots=True)
class Jump:
    """break or continue."""

    word: str


Node = Text | Pipe | Branch | Use | Jump


@dataclass(frozen=True, slots=True)
class Template:
    nodes: tuple[Node, ...]
    named: dict[str, tuple[Node, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    place: Place
    spaced: bool


Piece = str | list[_Token]


def parse(source: str) -> Template:
    """Parse a template.

    Raises: Failed with the place.
    """
    parser = _Parser(_pieces(source))
    nodes, word = parser.nodes(0)
    if word:
        raise parser.place.failed(f"unexpected {{{{{word}}}}}")
    return Template(nodes, parser.named)


def _pieces(source: str) -> list[Piece]:
    """Texts and the tokens of actions, in turn, white space already trimmed where asked for."""
    pieces: list[Piece] = []
    position, trim = 0, False
    while opening := _OPEN.search(source, position):
        text = source[position : opening.start()]
        text = text.lstrip() if trim else text
        pieces.append(text.rstrip() if opening[1] else text)
        comment = _COMMENT.match(source, opening.end())
        if comment:
            position, trim = comment.end(), bool(comment[1])
            continue
        tokens, position, trim = _action(source, opening)
        pieces.append(tokens)
    text = source[position:]
    pieces.append(text.lstrip() if trim else text)
    return pieces


def _action(source: str, opening: re.Match[str]) -> tuple[list[_Token], int, bool]:
    tokens: list[_Token] = []
    position, spaced = opening.end(), True
    start = _place(source, opening.start())
    while found := _TOKEN.match(source, position):
        position = found.end()
        kind = found.lastgroup or ""
        if kind == "end":
            tokens.append(_Token("end", "", start, True))
            return tokens, position, len(found[0]) > 2
        if kind != "space":
            tokens.append(_Token(kind, found[0], _place(source, found.start()), spaced))
        spaced = kind == "space"
    if position >= len(source):
        raise start.failed("an action without its }}")
    raise _place(source, position).failed(f"unexpected {source[position]!r} in an action")


def _place(source: str, offset: int) -> Place:
    return Place(source.count("\n", 0, offset) + 1, offset - source.rfind("\n", 0, offset))


class _Parser:
    """Reads pieces into nodes."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self.at = 0
        self.tokens: list[_Token] = []
        self.next = 0
        self.named: dict[str, tuple[Node, ...]] = {}
        self.place = Place(1, 1)

    def nodes(self, depth: int) -> tuple[tuple[Node, ...], str]:
        """Nodes up to an `end` or `else`, and which of them came; empty at the end of the file."""
        if depth > MAX_NESTING:
            raise self.place.failed("blocks nested too deeply")
        found: list[Node] = []
        while self.at < len(self.pieces):
            piece = self.pieces[self.at]
            self.at += 1
            if isinstance(piece, str):
                if piece:
                    found.append(Text(piece))
                continue
            self.tokens, self.next, self.place = piece, 0, piece[0].place
            word = piece[0].text if piece[0].kind == "word" else ""
            if word in ("end", "else"):
                self.next = 1
                return tuple(found), word
            node = self._node(word, depth)
            if node is not None:
                found.append(node)
        return tuple(found), ""

    def _node(self, word: str, depth: int) -> Node | None:
        if word in _BLOCKS:
            self.next = 1
            return self._branch(word, depth)
        if word in ("define", "block", "template"):
            self.next = 1
            return self._named(word, depth)
        if word in ("break", "continue"):
            self.next = 1
            self._end()
            return Jump(word)
        return self._whole_pipe()

    def _branch(self, word: str, depth: int) -> Branch:
        place, pipe = self.place, self._whole_pipe()
        then, stop = self.nodes(depth + 1)
        otherwise: tuple[Node, ...] = ()
        if stop == "else":
            following = self._peek()
            if following.kind == "word" and following.text in _BLOCKS:
                self.next += 1
                return Branch(word, pipe, then, (self._branch(following.text, depth + 1),))
            self._end()
            otherwise, stop = self.nodes(depth + 1)
        if stop != "end":
            raise place.failed(f"{{{{{word}}}}} without its {{{{end}}}}")
        self._end()
        return Branch(word, pipe, then, otherwise)

    def _named(self, word: str, depth: int) -> Node | None:
        place, token = self.place, self._take()
        if token.kind != "text":
            raise token.place.failed(f"{word} needs a name in quotes")
        name = _text(token)
        pipe = None if self._peek().kind == "end" else self._pipe(0)
        self._end()
        if word != "template":
            body, stop = self.nodes(depth + 1)
            if stop != "end":
                raise place.failed(f"{{{{{word}}}}} without its {{{{end}}}}")
            self._end()
            self.named[name] = body
        return None if word == "define" else Use(place, name, pipe)

    def _whole_pipe(self) -> Pipe:
        pipe = self._pipe(0)
        self._end()
        return pipe

    def _pipe(self, depth: int) -> Pipe:
        if depth > MAX_NESTING:
            raise self.place.failed("parentheses nested too deeply")
        place = self._peek().place
        names, declares = self._declaration()
        commands: list[tuple[Operand, ...]] = []
        while True:
            command = self._command(depth)
            if not command:
                raise self._peek().place.failed("a value is missing")
            commands.append(command)
            if self._peek().text != "|" or self._peek().kind != "sign":
                return Pipe(place, tuple(commands), names, declares)
            self.next += 1

    def _declaration(self) -> tuple[tuple[str, ...], bool]:
        """`$a, $b :=` or `$a =` at the beginning of a pipe."""
        at, names = self.next, []
        while self.tokens[at].kind == "variable":
            names.append(self.tokens[at].text)
            sign = self.tokens[at + 1].text
            if sign in (":=", "="):
                self.next = at + 2
                return tuple(names), sign == ":="
            if sign != ",":
                break
            at += 2
        return (), False

    def _command(self, depth: int) -> tuple[Operand, ...]:
        operands: list[Operand] = []
        while (operand := self._operand(depth)) is not None:
            operands.append(operand)
        return tuple(operands)

    def _operand(self, depth: int) -> Operand | None:
        token = self._peek()
        base: Operand | None
        if token.kind == "sign" and token.text == "(":
            self.next += 1
            base = self._pipe(depth + 1)
            if self._take().text != ")":
                raise token.place.failed("'(' without its ')'")
        elif token.kind == "field" or (token.kind == "sign" and token.text == "."):
            base = Chain(None, ())
            self.next += token.kind == "sign"
            return self._chain(base, first=token.kind == "field")
        elif token.kind in ("text", "number", "variable", "word"):
            self.next += 1
            base = _simple(token)
        else:
            return None
        return self._chain(base, first=False)

    def _chain(self, base: Operand, *, first: bool) -> Operand:
        """`base` with the fields that follow it without a space."""
        fields: list[str] = []
        while self._peek().kind == "field" and (first or not self._peek().spaced):
            fields.append(self._take().text[1:])
            first = False
        if not fields:
            return base
        return Chain(None if base == Chain(None, ()) else base, tuple(fields))

    def _peek(self) -> _Token:
        return self.tokens[self.next]

    def _take(self) -> _Token:
        token = self.tokens[self.next]
        self.next = min(self.next + 1, len(self.tokens) - 1)
        return token

    def _end(self) -> None:
        token = self._peek()
        if token.kind != "end":
            raise token.place.failed(f"unexpected {token.text}")


def _simple(token: _Token) -> Operand:
    if token.kind == "variable":
        return Variable(token.text)
    if token.kind == "word":
        return Literal(_WORDS[token.text]) if token.text in _WORDS else Function(token.text)
    return Literal(_text(token) if token.text[0] in "\"`'" else _number(token))


def _number(token: _Token) -> int | float:
    text = token.text
    try:
        if "x" in text.lower():
            return int(text, 16)
        return float(text) if set(text) & set(".eE") else int(text)
    except ValueError as fault:
        raise token.place.failed(f"bad number {text[:20]}") from fault


def _text(token: _Token) -> Any:
    """The value of a quoted token; a character in single quotes is a number."""
    if token.text.startswith("`"):
        return token.text[1:-1]
    try:
        value = ast.literal_eval(token.text)
    except (SyntaxError, ValueError) as fault:
        raise token.place.failed(f"bad text {token.text[:20]}") from fault
    return ord(value[0]) if token.text.startswith("'") else value
