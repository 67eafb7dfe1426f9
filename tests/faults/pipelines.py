"""Pipelines whose steps tell how often they ran and print numbered lines."""

from __future__ import annotations

from pathlib import Path


def numbered(runs: Path, gate: Path, *, before: int = 50, after: int = 50) -> str:
    """A step that prints `before` lines, waits until the file `gate` is there, prints `after` more.

    It appends to `runs` when it starts. The last line printed is `end`.
    """
    return f"""
kind: pipeline
type: exec
name: default
clone: {{disable: true}}
steps:
- name: count
  commands:
  - echo ran >> {runs}
  - i=0; while [ $i -lt {before} ]; do echo line $i; i=$((i+1)); done
  - while [ ! -e {gate} ]; do sleep 0.05; done
  - i={before}; while [ $i -lt {before + after} ]; do echo line $i; i=$((i+1)); done
  - echo end
"""


def numbers(lines: list[str]) -> list[int]:
    """The numbers of the `line N` lines, in order of appearance."""
    return [int(line[5:]) for line in lines if line.startswith("line ")]


def times_run(runs: Path) -> int:
    """How often the step started."""
    return len(runs.read_text().splitlines()) if runs.exists() else 0
