"""How long a failed step is kept: until nobody has typed for a while, or somebody says so."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Hold:
    """One step that is kept. Any thread."""

    def __init__(
        self,
        step: int,
        exit_code: int,
        keep_s: float,
        most_s: float,
        clock: Callable[[], float],
    ) -> None:
        """It ends after `keep_s` without a touch, and after `most_s` in any case."""
        self.step, self.exit_code = step, exit_code
        self._keep_s, self._clock = keep_s, clock
        self._last = clock() + most_s
        self._until = min(clock() + keep_s, self._last)
        self._changed = threading.Condition()
        #: Why it ended; empty while it goes on.
        self.reason = ""

    def touch(self) -> None:
        """Somebody works in the shell."""
        with self._changed:
            self._until = min(self._clock() + self._keep_s, self._last)

    def end(self, reason: str) -> None:
        """Go on; the first reason counts."""
        with self._changed:
            self.reason = self.reason or reason
            self._changed.notify_all()

    def left_s(self) -> float:
        """How long it lasts unless it is touched."""
        return max(0.0, self._until - self._clock())

    def wait(self) -> str:
        """Block until it has ended; why."""
        with self._changed:
            while not self.reason:
                left = self.left_s()
                if not left:
                    self.reason = "its time was over"
                    break
                self._changed.wait(left)
            return self.reason
