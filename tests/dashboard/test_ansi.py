from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dashboard.presenters import ansi

CASES = json.loads(Path(__file__).with_name("ansi_cases.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case["line"]))
def test_it_styles_a_line(case: dict[str, Any]) -> None:
    assert [[span.text, span.classes] for span in ansi.spans(case["line"])] == case["spans"]


def test_it_reads_a_line_without_escapes() -> None:
    assert ansi.plain("\x1b[1;32mok\x1b[0m  done\r") == "ok  done"


def test_it_survives_any_codes() -> None:
    for code in range(256):
        assert ansi.plain(f"\x1b[{code};38;5;{code};48;2;{code};{code}mx") == "x"
