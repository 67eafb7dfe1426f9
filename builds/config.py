"""A build's pipeline text: fetched from the forge, converted to the modern format, parsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import structlog
from django.conf import settings

from builds.evaluate.expand import expand
from builds.evaluate.program import Limits
from builds.forges import Source, forge
from builds.forges.base import Commit, Forge, ForgeError, NotFound
from builds.models import Repo, Template
from pipeline.convert import Written, combine, convert
from pipeline.document import File, parse
from pipeline.errors import PipelineError, Problem
from pipeline.facts import BuildFacts, RepoFacts
from pipeline.lint import check_manifest, check_sense
from pipeline.verdict import placed

log = structlog.get_logger(__name__)

#: Of a line that a program prints so much is in the server's log.
MAX_PRINTED: Final = 500
DEFAULT_PATH: Final = ".drone.yml"
#: Read where a repo has none at the default path. Source: Woodpecker's order.
WORKFLOWS: Final = ".woodpecker"
NEIGHBOURS: Final = (".woodpecker.yaml", ".woodpecker.yml")
MAX_BYTES: Final = 1_000_000
#: What the forge puts where bytes are no UTF-8.
UNREADABLE: Final = "\ufffd"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A commit and the pipeline text it holds; `text` is None where it has none.

    `workflows` are the files of a folder, by path, where that stands in for one file.
    """

    commit: Commit
    path: str
    text: str | None
    workflows: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Modern:
    """The text that is parsed; `converted`: not the fetched one, in which `source` tells places."""

    text: str
    converted: bool = False
    source: Written | None = None


def source(repo: Repo) -> Source:
    """Where a repo is, in a forge's words."""
    return Source(repo.slug, repo.git_http_url or repo.git_ssh_url)


def fetch(repo: Repo, rev: str) -> Fetched:
    """The commit that a full ref or sha names and its pipeline file, as it is.

    Raises: ForgeError if there is no such commit or nobody answers.
    """
    reader, where = forge(repo.scm), source(repo)
    path = repo.config_path or DEFAULT_PATH
    found = reader.snapshot(where, rev, path)
    if found.text is not None or path != DEFAULT_PATH:
        return Fetched(found.commit, path, found.text)
    workflows = _workflows(reader, where, found.commit.sha)
    if workflows:
        return Fetched(found.commit, WORKFLOWS, None, workflows)
    for name in NEIGHBOURS:
        other = reader.snapshot(where, found.commit.sha, name)
        if other.text is not None:
            return Fetched(found.commit, name, other.text)
    return Fetched(found.commit, path, None)


def _workflows(reader: Forge, where: Source, sha: str) -> dict[str, str]:
    names = reader.folder(where, sha, WORKFLOWS)
    paths = [f"{WORKFLOWS}/{name}" for name in names if name.endswith((".yml", ".yaml"))]
    return {path: reader.file(where, sha, path) for path in paths}


def modern(fetched: Fetched, repo: Repo, facts: RepoFacts, build: BuildFacts) -> Modern:
    """The text that is parsed: programs evaluated, templates loaded, old formats converted.

    Raises: PipelineError.
    """
    if fetched.workflows:
        written = combine(fetched.workflows)
        return Modern(written.text, True, written)
    reader, where = forge(repo.scm), source(repo)

    def imported(path: str) -> str | None:
        try:
            return reader.file(where, fetched.commit.sha, path)
        except NotFound:
            return None

    def template(name: str) -> str | None:
        found = Template.objects.filter(namespace=repo.namespace, name=name)
        return found.values_list("data", flat=True).first()

    text = expand(
        required(fetched, repo),
        fetched.path,
        facts,
        build,
        template=template,
        imported=imported,
        limits=limits(),
        show=lambda line: log.info("config.printed", repo=repo.slug, line=line[:MAX_PRINTED]),
    )
    made = text != fetched.text
    found = convert(text, fetched.path)
    if found is None:
        return Modern(text, made)
    return Modern(found.text, True, None if made else found)


def limits() -> Limits:
    """What a program that makes a pipeline file may use on this server."""
    return Limits(
        steps=settings.STARLARK_STEP_LIMIT,
        output_bytes=settings.STARLARK_SIZE_LIMIT,
        imports=settings.JSONNET_IMPORT_LIMIT,
    )


def required(fetched: Fetched, repo: Repo) -> str:
    """The fetched text.

    Raises: PipelineError where there is none, it is empty or too large.
    """
    text = fetched.text
    if text is None:
        raise _problem(
            "config:missing",
            f"there is no such file in {repo.slug} at {fetched.commit.sha[:10]}; "
            "expected a pipeline file (`kind: pipeline`)",
            fetched.path,
        )
    if len(text) > MAX_BYTES:
        raise _problem("config:too-large", f"larger than {MAX_BYTES} bytes", fetched.path)
    if not text.strip():
        raise _problem(
            "config:empty", "the file is empty; expected `kind: pipeline`", fetched.path, line=1
        )
    if UNREADABLE in text:
        line = text[: text.index(UNREADABLE)].count("\n") + 1
        raise _problem("yaml:encoding", "the file is not UTF-8 text", fetched.path, line=line)
    return text


@lru_cache(maxsize=128)
def parsed(text: str, path: str) -> File:
    """Parse a modern pipeline text; the trigger's work is still there when its stages are claimed.

    Raises: PipelineError.
    """
    return parse(text, path)


def check(modern: Modern, path: str) -> File:
    """Parse, and refuse what the manifest's rules refuse or what holds no pipeline at all.

    Raises: PipelineError, with places in the fetched text.
    """
    try:
        return _checked(modern.text, path)
    except PipelineError as fault:
        if not modern.converted:
            raise
        raise PipelineError(placed(fault.problems, modern.source)) from fault


def _checked(text: str, path: str) -> File:
    file = parsed(text, path)
    check_manifest(file)
    check_sense(file)
    if not file.pipelines:
        raise _problem(
            "config:no-pipeline", "no document has `kind: pipeline`; expected at least one", path
        )
    return file


def changed_paths(repo: Repo, text: str, before: str, after: str) -> Sequence[str] | None:
    """The files that a build changes, or None where no condition asks or nobody can tell."""
    if "path" not in text:
        return None
    try:
        return forge(repo.scm).changed(source(repo), before, after)
    except ForgeError:
        return None


def _problem(code: str, message: str, path: str, line: int = 0) -> PipelineError:
    return PipelineError([Problem(code, message, line, 1 if line else 0, file=path)])
