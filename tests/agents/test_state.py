"""What an agent remembers on disk, and what it makes of a stage it did not see the end of."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.orphans import MESSAGE, closing_report
from agents.state import Identity, State
from pipeline.wire import LogPart, Report, StepReport


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state")


def test_an_identity_belongs_to_a_server(state: State) -> None:
    one = Identity("http://one", "agent-1", 5, "secret")
    state.save_identity(one)
    assert state.identity("http://one") == one
    assert state.identity("http://two") is None
    assert "secret" not in repr(one)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"server": 3}'])
def test_a_broken_identity_is_none(state: State, text: str) -> None:
    (state.folder / "identity.json").write_text(text)
    assert state.identity("http://one") is None


def test_a_nonce_is_on_disk_before_it_is_asked_with(state: State) -> None:
    nonce = state.new_nonce()
    state.close()
    assert State(state.folder).nonces() == [nonce]
    state.settle(nonce)
    state.settle(nonce)
    assert state.nonces() == []


def test_a_lease_keeps_its_last_report(state: State) -> None:
    lease = state.open_lease("abc", "n")
    assert lease.last_report() is None
    assert [found.nonce for found in state.leases()] == [""]
    report = Report("running", begun=True, steps=(StepReport(1, "running", started_ms=5),))
    lease.save_report(report)
    (found,) = state.leases()
    assert found.key == "abc"
    assert found.nonce == "n"
    saved = found.last_report()
    assert saved is not None
    assert saved[0] == report
    assert saved[1] >= 0
    found.remove()
    assert list(state.leases()) == []


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "a b", "x" * 101])
def test_a_lease_id_that_is_no_file_name_is_refused(state: State, key: str) -> None:
    with pytest.raises(ValueError, match="unsafe"):
        state.open_lease(key, "n")


def test_files_are_for_the_agents_eyes_only(state: State) -> None:
    state.open_lease("abc", "n").save_report(Report("running"))
    for path in state.folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_an_orphan_is_closed_as_an_error() -> None:
    last = Report(
        "running",
        begun=True,
        started_ms=100,
        steps=(
            StepReport(1, "success", started_ms=100, stopped_ms=50, log_end=3),
            StepReport(2, "running", started_ms=40),
            StepReport(3, "pending"),
        ),
        logs=(LogPart(1, 0, ""),),
    )
    report = closing_report(last, 1000, {1: 3, 2: 7})
    assert (report.status, report.done, report.error) == ("error", True, MESSAGE)
    assert (report.started_ms, report.stopped_ms, report.logs) == (1100, 0, ())
    assert report.steps == (
        StepReport(1, "success", started_ms=1100, stopped_ms=1050, log_end=3),
        StepReport(2, "error", 255, MESSAGE, started_ms=1040, stopped_ms=0, log_end=7),
        StepReport(3, "skipped", log_end=0),
    )
