"""Make the pipeline text of a file that is a program, or that loads a template.

Source: Drone's converters (reference: pipeline format, section 10).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from builds.evaluate import subject
from builds.evaluate.errors import Failed
from builds.evaluate.program import JSONNET, STARLARK, TEMPLATE, Fetch, Limits, Program, run
from pipeline.document import parse
from pipeline.errors import PipelineError, Problem
from pipeline.facts import BuildFacts, RepoFacts

Show = Callable[[str], None]

#: By the end of a file's name, or of a template's.
LANGUAGES: Final = {
    ".jsonnet": JSONNET,
    ".star": STARLARK,
    ".starlark": STARLARK,
    ".script": STARLARK,
}
TEMPLATES: Final = {**LANGUAGES, ".yml": TEMPLATE, ".yaml": TEMPLATE}

_LOADS = re.compile(r"""^kind:\s+["']?template\b""", re.MULTILINE)


def language(path: str, languages: Mapping[str, str] = LANGUAGES) -> str | None:
    """The language of a file by its name; None for YAML as it is."""
    return next((lang for end, lang in languages.items() if path.endswith(end)), None)


def expand(
    text: str,
    path: str,
    repo: RepoFacts,
    build: BuildFacts,
    *,
    template: Fetch,
    imported: Fetch = lambda _path: None,
    limits: Limits | None = None,
    show: Show = lambda _line: None,
) -> str:
    """The modern pipeline text of a file; a file that is neither program nor template stays.

    `template` gives a template of the repo's organisation by name, `imported` a file of the same
    commit by path; both None if there is none. `show` takes each line that the program prints.

    Raises: PipelineError.
    """
    limits = limits or Limits()
    found = language(path)
    if found:
        return _run(found, path, text, {}, repo, build, imported, limits, show)
    loaded = parse(text, path).template if _LOADS.search(text) else None
    if loaded is None:
        return text
    source = template(loaded.load)
    if source is None:
        message = f"there is no template `{loaded.load}` in {repo.namespace or repo.slug}"
        raise _problem("template:missing", message, path, loaded.line)
    found = language(loaded.load, TEMPLATES)
    if found is None:
        known = ", ".join(TEMPLATES)
        message = f"the name of the template `{loaded.load}` has to end with one of {known}"
        raise _problem("template:language", message, path, loaded.line)
    return _run(found, loaded.load, source, loaded.data, repo, build, imported, limits, show)


def _run(
    lang: str,
    name: str,
    source: str,
    given: Mapping[str, Any],
    repo: RepoFacts,
    build: BuildFacts,
    imported: Fetch,
    limits: Limits,
    show: Show,
) -> str:
    if lang == JSONNET:
        data: dict[str, Any] = dict(subject.variables(repo, build, given))
    else:
        data = {"build": subject.build(build), "repo": subject.repo(repo), "input": dict(given)}
    try:
        result = run(Program(lang, name, source, data), limits, imported)
    except Failed as fault:
        problem = Problem(fault.code, str(fault), fault.line, fault.column, file=name)
        raise PipelineError([problem]) from fault
    for line in result.printed:
        show(line)
    return result.text


def _problem(code: str, message: str, file: str, line: int) -> PipelineError:
    return PipelineError([Problem(code, message, line, 1, file=file)])
