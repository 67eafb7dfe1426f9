"""What becomes of a file as a whole, from its bytes to its manifest lint: the word and the reasons.

The words are those of the original's steps when a hook comes in: convert, parse, lint.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from pipeline.convert import Written, convert
from pipeline.convert.emit import Origins
from pipeline.convert.legacy import is_legacy
from pipeline.convert.parts import LEFT_OUT
from pipeline.document import DEFAULT_FILE, File, parse
from pipeline.errors import WARNING, PipelineError, Problem
from pipeline.lint import check_manifest, lint
from pipeline.plan import candidates
from pipeline.yamltext import split

OK: Final = "ok"
NO_PIPELINE: Final = "no_pipeline"
PARSE_ERROR: Final = "parse_error"
LINT_ERROR: Final = "lint_error"
CONVERT_ERROR: Final = "convert_error"

_HEAD: Final = re.compile(r"---$|# ")
#: A line that is more than a comment.
_CONTENT: Final = re.compile(r"^[ \t]*[^ \t\r\n#]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on a file. A refused workflow of Woodpecker is a parse error, as it is to Drone.

    `file` is None where it could not be parsed; `problems` are then the reasons.

    `text` is the modern text; `converted`: it is not the one that was given. `documents` counts
    those of the given text that are more than comments. `source` tells places in the given text.
    """

    verdict: str
    problems: tuple[Problem, ...] = ()
    file: File | None = None
    text: str = ""
    converted: bool = False
    documents: int = 0
    source: Written | None = field(default=None, compare=False, repr=False)

    def lint(self, *, trusted: bool = False) -> list[Problem]:
        """Everything to say about the file, errors and warnings."""
        found = list(self.problems) if self.file is None else lint(self.file, trusted=trusted)
        if not self.converted:
            return found
        if self.text:
            found = placed(found, self.source)
        return [*self._left_out(), *found]

    def _left_out(self) -> Iterator[Problem]:
        """What the conversion says on top of its text, as warnings."""
        file = self.file.file if self.file else DEFAULT_FILE
        for line in itertools.takewhile(_HEAD.match, self.text.splitlines()):
            if LEFT_OUT in line:
                message = line.removeprefix("# ")
                yield Problem("convert:left-out", message, severity=WARNING, file=file)


def decode(data: bytes, file: str = DEFAULT_FILE) -> str:
    """The text of a file.

    Raises: PipelineError if it is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        column = fault.start - data.rfind(b"\n", 0, fault.start)
        message = "the file is not UTF-8 text"
        raise PipelineError([Problem("yaml:encoding", message, line, column, file=file)]) from fault


def judge(data: bytes | str, file: str = DEFAULT_FILE) -> Judged:
    """Convert, parse and lint a file as the server does; never raises PipelineError."""
    verdict, text, modern, count = PARSE_ERROR, "", "", 0
    source = None
    try:
        text = decode(data, file) if isinstance(data, bytes) else data
        count = sum(1 for part in split(text) if _CONTENT.search(part.text))
        verdict = CONVERT_ERROR if is_legacy(text) else PARSE_ERROR
        source = convert(text, file)
        modern = text if source is None else source.text
        verdict = PARSE_ERROR
        parsed = parse(modern, file)
    except PipelineError as fault:
        return Judged(verdict, fault.problems, None, modern, source is not None, count, source)
    try:
        check_manifest(parsed)
    except PipelineError as fault:
        return Judged(LINT_ERROR, fault.problems, parsed, modern, source is not None, count, source)
    verdict = OK if candidates(parsed) else NO_PIPELINE
    return Judged(verdict, (), parsed, modern, source is not None, count, source)


def placed(problems: Sequence[Problem], source: Written | None) -> list[Problem]:
    """Findings about a converted text at their places in the given one, as far as `source` tells.

    Without it, as for what a program wrote, they have none.
    """
    if not any(problem.line for problem in problems):
        return list(problems)
    origins = source.origins() if source else None
    return [_placed(problem, origins) for problem in problems]


def _placed(problem: Problem, origins: Origins | None) -> Problem:
    """A finding about a converted text at its place in the given one, if that is known."""
    if not problem.line:
        return problem
    file, (line, column) = origins.of(problem.line) if origins else ("", (0, 0))
    message = f"{problem.message} (line {problem.line} of the converted file)"
    return replace(problem, message=message, line=line, column=column, file=file or problem.file)
