"""Words that every figure is given in."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread_ms(values_s: Sequence[float]) -> dict[str, float]:
    """Median, 90th and 99th percentile of seconds, in milliseconds."""
    return {
        "p50_ms": round(statistics.median(values_s) * 1000, 2),
        "p90_ms": round(quantile(values_s, 0.90) * 1000, 2),
        "p99_ms": round(quantile(values_s, 0.99) * 1000, 2),
    }


def show(figure: str, **facts: object) -> None:
    """Print one figure as a line of JSON."""
    json.dump({"figure": figure, **facts}, sys.stdout)
    sys.stdout.write("\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Say on the terminal what is going on."""
    print(text, file=sys.stderr, flush=True)
