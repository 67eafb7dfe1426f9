"""Say at the end how many files of the corpus agree, or that there is none."""

from __future__ import annotations

from typing import Any

from tests import corpus


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [
        dict(report.user_properties)
        for report in terminalreporter.getreports("passed")
        if "agreement" in dict(report.user_properties)
    ]
    ran = any("tests/corpus/" in one.nodeid for one in terminalreporter.getreports("passed"))
    if reports:
        words = [one["agreement"] for one in reports]
        differences = len(words) - words.count("agrees")
        terminalreporter.write_line(
            f"corpus: {words.count('agrees')} of {len(words)} files agree with the reference,"
            f" {differences} differ on purpose"
        )
    elif ran and corpus.folder("pipelines") is None:
        terminalreporter.write_line(f"corpus: absent, not compared ({corpus.SETTING})")
