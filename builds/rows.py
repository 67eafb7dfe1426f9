"""Whole rows of several tables in one statement that is built once.

Building a SELECT of four joined tables costs Django 20 times what running it does; the calls that
an agent makes for every stage read through here instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model

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
            names, converters = _reading(model, connection.vendor)
            values = list(row[start : start + len(names)])
            start += len(names)
            made.append(_instance(model, names, values, converters))
        return tuple(made)


def _instance(
    model: type[Model],
    names: Sequence[str],
    values: list[Any],
    converters: Sequence[tuple[int, Any, Sequence[Converter]]],
) -> Model | None:
    for index, expression, functions in converters:
        for function in functions:
            values[index] = function(values[index], expression, connection)
    key = names.index(model._meta.pk.attname)
    return None if values[key] is None else model.from_db(connection.alias, names, values)


@lru_cache(maxsize=64)
def _reading(
    model: type[Model], vendor: str
) -> tuple[Sequence[str], Sequence[tuple[int, Any, Sequence[Converter]]]]:
    """Attribute names of a model's columns, and what turns the database's values into theirs."""
    fields = model._meta.concrete_fields
    converters = []
    for index, field in enumerate(fields):
        expression = field.cached_col
        functions = [
            *connection.ops.get_db_converters(expression),
            *field.get_db_converters(connection),
        ]
        if functions:
            converters.append((index, expression, functions))
    return [field.attname for field in fields], converters
