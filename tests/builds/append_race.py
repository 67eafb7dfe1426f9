"""Run by test_logs_race in its own process: many threads append to the same logs at once."""

from __future__ import annotations

import json
import sys
import threading

import django
import zstandard

django.setup()

from django.core.management import call_command  # noqa: E402 - Django comes first
from django.db import connections  # noqa: E402

from builds import logs  # noqa: E402

THREADS, STEPS, LINES = 4, 5, 60


def write(name: int, failures: list[str]) -> None:
    """Append to each log until it has all lines, whoever wrote them."""
    try:
        for step in range(STEPS):
            position = 0
            while position < LINES:
                frame = zstandard.compress(b"{}\n" + f"{position} by {name}\n".encode())
                position = logs.append(step, position, frame)
    except Exception as fault:
        failures.append(repr(fault))
    finally:
        connections.close_all()


def main() -> int:
    """Race; print what is wrong as JSON."""
    for alias in connections:
        call_command("migrate", database=alias, verbosity=0)
    failures: list[str] = []
    threads = [threading.Thread(target=write, args=(n, failures)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for step in range(STEPS):
        lines = b"".join(logs.text(step)).decode().splitlines()
        if [line.split(" by ")[0] for line in lines] != [str(n) for n in range(LINES)]:
            failures.append(f"step {step}: {lines}")
        logs.finish(step, LINES)
        logs.compact(step)
        if b"".join(logs.text(step)).decode().splitlines() != lines:
            failures.append(f"step {step} differs after compaction")
    json.dump(failures, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
