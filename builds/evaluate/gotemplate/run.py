"""Run a template over data, within bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from builds.evaluate.errors import LIMIT, Failed
from builds.evaluate.gotemplate import functions
from builds.evaluate.gotemplate.syntax import (
    Branch,
    Chain,
    Function,
    Jump,
    Literal,
    Node,
    Operand,
    Pipe,
    Place,
    Template,
    Text,
    Use,
    Variable,
    parse,
)

MAX_DEPTH: Final = 100


def render(source: str, data: Mapping[str, Any], step_limit: int, output_limit: int) -> str:
    """The text that a template makes of `data`, which is dot and `$`.

    Raises: Failed with the place.
    """
    run = _Run(parse(source), step_limit, output_limit)
    try:
        run.nodes(run.template.nodes, data, [{"$": data}])
    except _JumpError as jump:
        raise Failed(str(jump)) from jump
    return "".join(run.out)


class _JumpError(Exception):
    """Leaves the body of a range: `word` is break or continue."""

    def __init__(self, word: str) -> None:
        super().__init__(f"{word} outside of range")
        self.word = word


Scopes = list[dict[str, Any]]


class _Run:
    """One run: what was written so far and how many steps are left."""

    def __init__(self, template: Template, step_limit: int, output_limit: int) -> None:
        self.template = template
        self.out: list[str] = []
        self.step_limit = step_limit
        self.output_limit = output_limit
        self.steps = 0
        self.size = 0
        self.depth = 0

    def nodes(self, nodes: Sequence[Node], dot: Any, scopes: Scopes) -> None:
        for node in nodes:
            self._step()
            if isinstance(node, Text):
                self._write(node.text)
            elif isinstance(node, Pipe):
                value = self._pipe(node, dot, scopes)
                if not node.names:
                    self._write(functions.show(value))
            elif isinstance(node, Branch):
                self._branch(node, dot, scopes)
            elif isinstance(node, Use):
                self._use(node, dot, scopes)
            elif isinstance(node, Jump):
                raise _JumpError(node.word)

    def _branch(self, node: Branch, dot: Any, scopes: Scopes) -> None:
        inner: Scopes = [*scopes, {}]
        if node.word == "range":
            self._range(node, dot, inner)
            return
        value = self._pipe(node.pipe, dot, inner)
        if functions.truth(value):
            self.nodes(node.then, value if node.word == "with" else dot, inner)
        else:
            self.nodes(node.otherwise, dot, inner)

    def _range(self, node: Branch, dot: Any, scopes: Scopes) -> None:
        names = node.pipe.names
        value = self._commands(node.pipe, dot, scopes)
        items = list(_items(value, node.pipe.place))
        for key, item in items:
            scope = dict(zip(names, (key, item) if len(names) == 2 else (item,), strict=False))
            try:
                self.nodes(node.then, item, [*scopes, scope])
            except _JumpError as jump:
                if jump.word == "break":
                    break
        if not items:
            self.nodes(node.otherwise, dot, scopes)

    def _use(self, node: Use, dot: Any, scopes: Scopes) -> None:
        body = self.template.named.get(node.name)
        if body is None:
            raise node.place.failed(f"there is no template {node.name!r}")
        if self.depth >= MAX_DEPTH:
            raise node.place.failed(f"templates use each other deeper than {MAX_DEPTH} levels")
        value = self._pipe(node.pipe, dot, scopes) if node.pipe else None
        self.depth += 1
        self.nodes(body, value, [{"$": value}])
        self.depth -= 1

    def _pipe(self, pipe: Pipe, dot: Any, scopes: Scopes) -> Any:
        value = self._commands(pipe, dot, scopes)
        for name in pipe.names[-1:]:
            scope = scopes[-1]
            if not pipe.declares:
                scope = next((one for one in reversed(scopes) if name in one), {})
                if name not in scope:
                    raise pipe.place.failed(f"undefined variable {name}")
            scope[name] = value
        return value

    def _commands(self, pipe: Pipe, dot: Any, scopes: Scopes) -> Any:
        fed: tuple[Any, ...] = ()
        for command in pipe.commands:
            fed = (self._command(command, fed, pipe.place, dot, scopes),)
        return fed[0]

    def _command(
        self,
        command: Sequence[Operand],
        fed: tuple[Any, ...],
        place: Place,
        dot: Any,
        scopes: Scopes,
    ) -> Any:
        self._step()
        head, rest = command[0], command[1:]
        if not isinstance(head, Function):
            if rest or fed:
                raise place.failed("only a function takes values")
            return self._value(head, place, dot, scopes)
        if head.name in ("and", "or"):
            return self._lazy(head.name, rest, fed, place, dot, scopes)
        values = [self._value(operand, place, dot, scopes) for operand in rest]
        try:
            return functions.call(head.name, (*values, *fed))
        except Failed as fault:
            raise place.failed(str(fault)) from fault

    def _lazy(
        self,
        name: str,
        operands: Sequence[Operand],
        fed: tuple[Any, ...],
        place: Place,
        dot: Any,
        scopes: Scopes,
    ) -> Any:
        """The first value that decides, or the last."""
        value = None
        for operand in operands:
            value = self._value(operand, place, dot, scopes)
            if functions.truth(value) == (name == "or"):
                return value
        return fed[0] if fed else value

    def _value(self, operand: Operand, place: Place, dot: Any, scopes: Scopes) -> Any:
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Variable):
            return _variable(operand.name, place, scopes)
        if isinstance(operand, Function):
            return self._command((operand,), (), place, dot, scopes)
        if isinstance(operand, Pipe):
            return self._pipe(operand, dot, [*scopes, {}])
        value = dot if operand.base is None else self._value(operand.base, place, dot, scopes)
        return _field(operand, value, place)

    def _step(self) -> None:
        self.steps += 1
        if self.steps > self.step_limit:
            raise Failed(f"more than {self.step_limit} steps", code=LIMIT)

    def _write(self, text: str) -> None:
        self.size += len(text)
        if self.size > self.output_limit:
            raise Failed(f"the result is longer than {self.output_limit} bytes", code=LIMIT)
        self.out.append(text)


def _items(value: Any, place: Place) -> Iterator[tuple[Any, Any]]:
    if value is None:
        return iter(())
    if isinstance(value, Mapping):
        return iter(sorted(value.items()))
    if isinstance(value, list):
        return enumerate(value)
    if isinstance(value, int) and not isinstance(value, bool) and value <= 1_000_000:
        return ((number, number) for number in range(value))
    raise place.failed("range needs a list, a map or a number")


def _variable(name: str, place: Place, scopes: Scopes) -> Any:
    for scope in reversed(scopes):
        if name in scope:
            return scope[name]
    raise place.failed(f"undefined variable {name}")


def _field(chain: Chain, value: Any, place: Place) -> Any:
    for name in chain.fields:
        if not isinstance(value, Mapping):
            what = "nothing" if value is None else type(value).__name__
            raise place.failed(f"no field {name} in {what}")
        value = value.get(name)
    return value
