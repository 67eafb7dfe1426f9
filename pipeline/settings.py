"""Turn a step's `settings` into PLUGIN_ variables.

Source: drone-runner-docker's encoder (reference: pipeline format, section 4).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from pipeline.resources import SecretRef

PREFIX: Final = "PLUGIN_"

_HTML = str.maketrans(
    {char: f"\\u{ord(char):04x}" for char in "<>&\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}"}
)


def variables(settings: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """PLUGIN_ variables with their values, and those with the name of a secret.

    Keys are upper-cased and nothing else (`a-b` becomes `PLUGIN_A-B`); null settings are left out.
    """
    values: dict[str, str] = {}
    secrets: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, SecretRef):
            secrets[PREFIX + key.upper()] = value.name
        elif value is not None:
            values[PREFIX + key.upper()] = encode(value)
    return values, secrets


def encode(value: Any) -> str:
    """The text of one setting: scalars plain, flat lists joined by commas, the rest JSON."""
    if isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
        return ",".join(_item(item) for item in value)
    return json_text(value) if isinstance(value, (list, dict)) else _scalar(value)


def _item(value: Any) -> str:
    """A list's item keeps its YAML form, in which infinity is `.inf`."""
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return go_float(value, 6, 2, -4) if isinstance(value, float) else str(value)


def json_text(value: Any) -> str:
    """Compact JSON with sorted keys, as Go writes it. Infinity becomes text."""
    if isinstance(value, dict):
        return (
            "{"
            + ",".join(f"{json_text(key)}:{json_text(value[key])}" for key in sorted(value))
            + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    if isinstance(value, float):
        return go_float(value, 21, 1, -6) if math.isfinite(value) else f'"{_item(value)}"'
    return json.dumps(value, ensure_ascii=False).translate(_HTML)


def go_float(value: float, large: int, exponent_digits: int, small: int) -> str:
    """The shortest digits that give `value` again, as Go writes them.

    With an exponent of at least `exponent_digits` digits where the number is 10^`large` or more, or
    less than 10^`small`.
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    sign, digits, point = Decimal(repr(value)).normalize().as_tuple()
    text = "".join(map(str, digits))
    exponent = len(text) + int(point) - 1
    minus = "-" if sign else ""
    if value and (exponent < small or exponent >= large):
        fraction = f".{text[1:]}" if text[1:] else ""
        return f"{minus}{text[0]}{fraction}e{exponent:+0{exponent_digits + 1}d}"
    return minus + format(Decimal(text).scaleb(int(point)), "f")
