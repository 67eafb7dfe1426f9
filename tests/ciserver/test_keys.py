from __future__ import annotations

from pathlib import Path

from cryptography.fernet import Fernet

from ciserver.embedded import keys


def test_keys_are_made_once(tmp_path: Path) -> None:
    first = keys.ensure(tmp_path)
    before = {path.name: path.read_text() for path in (tmp_path / "keys").iterdir()}
    second = keys.ensure(tmp_path)

    assert (first, second) == (True, False)
    assert {path.name: path.read_text() for path in (tmp_path / "keys").iterdir()} == before


def test_only_what_is_missing_is_made(tmp_path: Path) -> None:
    keys.ensure(tmp_path)
    token = (tmp_path / "keys" / "join_token").read_text()
    (tmp_path / "keys" / "secret_key").unlink()

    assert keys.ensure(tmp_path)
    assert (tmp_path / "keys" / "join_token").read_text() == token


def test_the_encryption_key_is_one(tmp_path: Path) -> None:
    keys.ensure(tmp_path)

    Fernet((tmp_path / "keys" / "encryption_keys").read_text().strip())


def test_nobody_else_can_read_them(tmp_path: Path) -> None:
    keys.ensure(tmp_path)

    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}
