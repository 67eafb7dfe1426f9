"""What is wrong with a pipeline file, where, and what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ERROR = "error"
WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. Lines and columns start at 1; 0 means the file as a whole."""

    code: str
    message: str
    line: int = 0
    column: int = 0
    severity: str = ERROR
    file: str = ".drone.yml"

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where}: {self.message}"


class UserError(Exception):
    """Something a person has to mend; shown to them. `code` is stable, such as
    `config:unknown-key`."""

    code = "user:error"

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        if code:
            self.code = code


class PipelineError(UserError):
    """A pipeline file that cannot be run. `problems` lists every error found, not only the
    first."""

    code = "pipeline:invalid"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class PlatformError(Exception):
    """Something that is no person's fault: logged, and a build or stage that meets it ends in
    `error`."""
