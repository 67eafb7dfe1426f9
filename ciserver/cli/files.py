"""Pipeline files that a command was given: paths, folders of workflows, `-` for standard input."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from builds.evaluate.expand import expand, language
from builds.evaluate.program import Limits
from ciserver.cli.terminal import Refused
from pipeline.convert import combine
from pipeline.errors import PipelineError
from pipeline.facts import BuildFacts, RepoFacts
from pipeline.verdict import CONVERT_ERROR, PARSE_ERROR, Judged, decode, judge

DEFAULT: Final = ".drone.yml"
#: A program whose imported file is not there.
NEEDS_IMPORT: Final = "needs_import"
REPO: Final = RepoFacts("octocat/hello-world", namespace="octocat", name="hello-world")
BUILD: Final = BuildFacts(target="main", source="main")


def read(paths: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file, `.drone.yml` for none.

    Raises: Refused for a file that cannot be read.
    """
    for path in list(paths) or [DEFAULT]:
        if path == "-":
            yield DEFAULT, sys.stdin.buffer.read()
            continue
        try:
            yield path, Path(path).read_bytes()
        except OSError as fault:
            raise Refused(f"{path}: {fault.strerror or fault}") from fault


def judged(
    paths: Iterable[str], repo: RepoFacts = REPO, build: BuildFacts = BUILD
) -> Iterator[tuple[str, Judged]]:
    """Each file, or folder of workflows, with what becomes of it.

    Jsonnet and Starlark are evaluated for `repo` and `build`; other files do not depend on them.

    Raises: Refused for one that cannot be read.
    """
    for path in list(paths) or [DEFAULT]:
        if Path(path).is_dir():
            yield path, _folder(path)
            continue
        for name, data in read([path]):
            yield name, _program(name, data, repo, build) if language(name) else judge(data, name)


def workflows(folder: str) -> dict[str, str]:
    """The workflows of a folder, by path.

    Raises: Refused if there are none.
    """
    files = sorted(one for one in Path(folder).iterdir() if one.suffix in (".yml", ".yaml"))
    if not files:
        raise Refused(f"{folder}: there are no workflows in it")
    return {name: data.decode("utf-8", "replace") for name, data in read(map(str, files))}


def _folder(path: str) -> Judged:
    try:
        written = combine(workflows(path))
    except PipelineError as fault:
        return Judged(PARSE_ERROR, fault.problems)
    return dataclasses.replace(judge(written.text, path), converted=True, source=written)


def _program(path: str, data: bytes, repo: RepoFacts, build: BuildFacts) -> Judged:
    try:
        text = expand(
            decode(data, path),
            path,
            repo,
            build,
            template=lambda _name: None,
            imported=lambda name: _text(Path(name)),
            limits=Limits(imports=100),
        )
    except PipelineError as fault:
        lacking = any("import" in one.message for one in fault.problems)
        return Judged(NEEDS_IMPORT if lacking else CONVERT_ERROR, fault.problems)
    return dataclasses.replace(judge(text, path), converted=True)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
