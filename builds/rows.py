"""Reading, inserting and changing whole rows, in statements that are built once.

Building a SELECT of four joined tables costs Django 20 times what running it does, an UPDATE five
times; the calls that an agent makes for every stage go through here instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Final

from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import AutoField, Field, Model
from django.db.models.base import ModelState
from django.db.models.functions import Now

Converter = Callable[[Any, Any, BaseDatabaseWrapper], Any]


class Rows:
    """`SELECT` all columns of `tables` (alias to model), then `tail`: FROM, WHERE and the rest."""

    def __init__(self, tables: Mapping[str, type[Model]], tail: str) -> None:
        self._models = tuple(tables.values())
        columns = [
            f"{alias}.{connection.ops.quote_name(field.column or '')}"
            for alias, model in tables.items()
            for field in model._meta.concrete_fields
        ]
        self._sql = f"SELECT {', '.join(columns)} {tail}"

    def all(self, *values: Any) -> list[tuple[Any, ...]]:
        """One instance per table and row; None for a table that an outer join found no row in."""
        with connection.cursor() as cursor:
            cursor.execute(self._sql, values)
            found = cursor.fetchall()
        return [self._instances(row) for row in found]

    def first(self, *values: Any) -> tuple[Any, ...] | None:
        """The instances of the first row."""
        return next(iter(self.all(*values)), None)

    def _instances(self, row: Sequence[Any]) -> tuple[Any, ...]:
        made, start = [], 0
        for model in self._models:
            reading = _reading(model, connection.vendor)
            end = start + len(reading.names)
            made.append(_instance(model, reading, row[start:end]))
            start = end
        return tuple(made)


def _instance(model: type[Model], reading: _Reading, row: Sequence[Any]) -> Model | None:
    """What `Model.from_db` makes of a row, but without calling the model's constructor.

    That looks at each of 40 arguments and sends two signals; no model here listens or overrides it.
    """
    if row[reading.key] is None:
        return None
    made = model.__new__(model)
    values = made.__dict__
    values.update(zip(reading.names, row, strict=True))
    for name, expression, function in reading.converters:
        values[name] = function(values[name], expression, connection)
    state = ModelState()
    state.db, state.adding = connection.alias, False
    values["_state"] = state
    return made


@dataclass(frozen=True, slots=True)
class _Reading:
    """Attribute names of a model's columns, which of them is the key, and what turns the
    database's values into theirs."""

    names: Sequence[str]
    key: int
    converters: Sequence[tuple[str, Any, Converter]]


@lru_cache(maxsize=64)
def _reading(model: type[Model], vendor: str) -> _Reading:
    fields = model._meta.concrete_fields
    converters = [
        (field.attname, field.cached_col, function)
        for field in fields
        for function in (
            *connection.ops.get_db_converters(field.cached_col),
            *field.get_db_converters(connection),
        )
    ]
    names = [field.attname for field in fields]
    return _Reading(names, names.index(model._meta.pk.attname), converters)


class Computed(Enum):
    """Values of `update` and `insert` that the database works out."""

    NOW = "the database's time"
    ONE_MORE = "the column's value and one"


@dataclass(frozen=True, slots=True)
class First:
    """A value for a column that has none yet."""

    value: Any


def update(model: type[Model], where: Mapping[str, Any], changes: Mapping[str, Any]) -> int:
    """Change the rows that match; how many did. Columns by their attribute names (`stage_id`).

    `where` holds values the columns must have, a tuple where several will do; `changes` holds
    values, or `Computed` or `First` ones.
    """
    how = tuple(
        (name, value if isinstance(value, Computed) else type(value) is First)
        for name, value in changes.items()
    )
    which = tuple(
        (name, len(value) if isinstance(value, tuple) else 0) for name, value in where.items()
    )
    values = [
        _stored(model, name, value.value if isinstance(value, First) else value)
        for name, value in changes.items()
        if not isinstance(value, Computed)
    ]
    for name, value in where.items():
        several = value if isinstance(value, tuple) else (value,)
        values += [_stored(model, name, one) for one in several]
    with connection.cursor() as cursor:
        cursor.execute(_update_sql(model, connection.vendor, how, which), values)
        return int(cursor.rowcount)


#: Rows per INSERT: the widest table's stay far below the number of values a statement may have.
_AT_ONCE: Final = 200


def insert(rows: Sequence[Model], **computed: Computed) -> None:
    """Insert unsaved rows of one model; those whose table counts them get their keys.

    `computed` names columns whose value is the database's, not the row's. Call in a transaction.
    """
    if len(rows) > _AT_ONCE:
        for start in range(0, len(rows), _AT_ONCE):
            insert(rows[start : start + _AT_ONCE], **computed)
        return
    if not rows:
        return
    model = type(rows[0])
    fields = _inserted(model)
    sql = _insert_sql(model, connection.vendor, len(rows), tuple(computed.items()))
    values = [
        field.get_db_prep_save(field.pre_save(row, True), connection)
        for row in rows
        for field in fields
        if field.attname not in computed
    ]
    key = model._meta.pk
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        if key not in fields:
            for row, (number,) in zip(rows, cursor.fetchall(), strict=True):
                setattr(row, key.attname, number)
    for row in rows:
        row._state.adding, row._state.db = False, connection.alias


@lru_cache(maxsize=64)
def _inserted(model: type[Model]) -> tuple[Field[Any, Any], ...]:
    """The columns an INSERT names: all but a key that the database counts."""
    return tuple(field for field in model._meta.concrete_fields if not isinstance(field, AutoField))


@lru_cache(maxsize=64)
def _insert_sql(
    model: type[Model], vendor: str, count: int, computed: tuple[tuple[str, Computed], ...]
) -> str:
    now = _now(model)
    fields = _inserted(model)
    known = dict(computed)
    if any(kind is not Computed.NOW for kind in known.values()):
        raise ValueError("an INSERT computes only the database's time")
    quoted = connection.ops.quote_name
    one = ", ".join(now if field.attname in known else "%s" for field in fields)
    names = ", ".join(quoted(str(field.column)) for field in fields)
    counted = model._meta.pk not in fields
    answer = f" RETURNING {quoted(str(model._meta.pk.column))}" if counted else ""
    many = ", ".join([f"({one})"] * count)
    return f"INSERT INTO {quoted(model._meta.db_table)} ({names}) VALUES {many}{answer}"  # noqa: S608 - names of columns


def _now(model: type[Model]) -> str:
    """The database's time, in its own words."""
    sql, _ = model._base_manager.all().query.get_compiler(connection=connection).compile(Now())
    return str(sql)


def _stored(model: type[Model], name: str, value: Any) -> Any:
    return model._meta.get_field(name).get_db_prep_save(value, connection)  # type: ignore[union-attr]


@lru_cache(maxsize=64)
def _update_sql(
    model: type[Model],
    vendor: str,
    how: tuple[tuple[str, Computed | bool], ...],
    which: tuple[tuple[str, int], ...],
) -> str:
    now = _now(model)

    def column(name: str) -> str:
        return connection.ops.quote_name(str(model._meta.get_field(name).column))  # type: ignore[union-attr]

    def new(name: str, kind: Computed | bool) -> str:
        if isinstance(kind, Computed):
            return now if kind is Computed.NOW else f"{column(name)} + 1"
        return f"COALESCE({column(name)}, %s)" if kind else "%s"

    sets = ", ".join(f"{column(name)} = {new(name, kind)}" for name, kind in how)
    tests = " AND ".join(
        f"{column(name)} IN ({', '.join(['%s'] * several)})" if several else f"{column(name)} = %s"
        for name, several in which
    )
    return f"UPDATE {connection.ops.quote_name(model._meta.db_table)} SET {sets} WHERE {tests}"  # noqa: S608 - names of columns
