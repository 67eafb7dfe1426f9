from __future__ import annotations

import os
from pathlib import Path

import pytest

from ciserver.embedded import lock


def test_a_second_holder_is_told_who_the_first_is(tmp_path: Path) -> None:
    first = lock.hold(tmp_path, "http://127.0.0.1:8000")

    with first, pytest.raises(lock.Taken, match=f"process {os.getpid()}, http://127.0.0.1:8000"):
        lock.hold(tmp_path, "elsewhere")


def test_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    lock.hold(tmp_path, "first").close()

    lock.hold(tmp_path, "second").close()
