from __future__ import annotations

import pytest


@pytest.fixture
def test_transaction_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels closes connections around its calls, and with them a test's transaction."""
    monkeypatch.setattr("channels.db.close_old_connections", lambda: None)
