"""Goldens: expected results in JSON; `pytest tests/pipeline --refresh-goldens` writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOLDENS = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--refresh-goldens",
        action="store_true",
        default=False,
        help="write the results of golden tests as the new expectation; read the difference",
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """Compare JSON data with the golden of that name."""

    def check(name: str, data: Any) -> None:
        path = GOLDENS / f"{name}.json"
        text = json.dumps(data, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        if request.config.getoption("--refresh-goldens", default=False):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert json.loads(text) == json.loads(path.read_text())

    return check
