"""Why a program did not become a pipeline file; shared by both processes."""

from __future__ import annotations

from typing import Final

FAILED: Final = "evaluate:failed"
LIMIT: Final = "evaluate:limit"


class Failed(Exception):
    """The program is wrong, or needs more than it may. Lines and columns start at 1; 0: unknown."""

    def __init__(self, message: str, line: int = 0, column: int = 0, code: str = FAILED) -> None:
        super().__init__(message)
        self.line, self.column, self.code = line, column, code
