"""Older and neighbouring formats to the modern one: 0.8 files and Woodpecker's workflows."""

from __future__ import annotations

from pipeline.convert import legacy, woodpecker
from pipeline.convert.emit import Written
from pipeline.convert.woodpecker import combine
from pipeline.yamltext import collector_paused


def convert(text: str, file: str) -> Written | None:
    """The modern text of a file of another format; None for a modern one.

    Raises: PipelineError naming what cannot be converted, and its new spelling.
    """
    with collector_paused(len(text)):
        if legacy.is_legacy(text):
            return legacy.convert(text, file)
        if woodpecker.is_workflow(text, file):
            return woodpecker.convert(text, file)
    return None


def modernise(text: str, file: str) -> str:
    """The modern text of a file; a modern one is returned unchanged.

    Raises: PipelineError.
    """
    found = convert(text, file)
    return text if found is None else found.text


__all__ = ["Written", "combine", "convert", "modernise"]
