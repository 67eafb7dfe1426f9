from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlencode

import pytest

from ciserver import env
from ciserver.embedded import keys

DOCS = Path(__file__).parent.parent.parent / "docs" / "settings.md"


def test_defaults_are_a_server_of_its_own(tmp_path: Path) -> None:
    settings = env.read({"CISERVER_DATA_DIR": str(tmp_path)})

    assert settings.own_redis
    assert settings.bind == "127.0.0.1:8000"
    assert settings.public_url == "http://127.0.0.1:8000"
    assert settings.agent


def test_keys_of_the_data_dir_are_read(tmp_path: Path) -> None:
    keys.ensure(tmp_path)

    settings = env.read({"CISERVER_DATA_DIR": str(tmp_path)})

    assert settings.join_token.startswith("cij_")
    assert len(settings.encryption_keys) == 1
    assert settings.redis_url.startswith("redis+socket://server:")
    assert settings.agent_redis_url.startswith("redis+socket://agents:")


def test_given_secrets_win_over_the_data_dir(tmp_path: Path) -> None:
    keys.ensure(tmp_path)

    settings = env.read({"CISERVER_DATA_DIR": str(tmp_path), "DRONE_RPC_SECRET": "given"})

    assert settings.join_token == "given"


def test_a_secret_comes_from_the_file_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file\n")

    settings = env.read({"CISERVER_SECRET_KEY_FILE": str(tmp_path / "secret")})

    assert settings.secret_key == "from a file"


def test_our_name_wins_over_a_synonym() -> None:
    settings = env.read({"CISERVER_JOIN_TOKEN": "ours", "DRONE_RPC_SECRET": "theirs"})

    assert settings.join_token == "ours"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("CISERVER_BIND", "8000", "CISERVER_BIND: expected host:port"),
        ("CISERVER_BIND", "localhost:99999", "CISERVER_BIND: expected host:port"),
        ("CISERVER_LANES", "0", "CISERVER_LANES: expected a whole number of at least 1, got '0'"),
        ("CISERVER_AGENT", "perhaps", "CISERVER_AGENT: expected true or false, got 'perhaps'"),
        ("CISERVER_PUBLIC_URL", "ci.example.com", "expected a URL that begins with http"),
        ("CISERVER_REDIS_URL", "amqp://x", "expected a URL that begins with redis:// or"),
        ("CISERVER_REDIS_URL", "rediss://h?ssl_cert_reqs=CERT_NONE", "expected none, optional or"),
        ("CISERVER_REDIS_CA_FILE", "/does/not/exist", "CISERVER_REDIS_CA_FILE: there is no such"),
        ("CISERVER_LOG_LEVEL", "loud", "expected one of debug, info, warning, error"),
        ("CISERVER_SECRET_KEY_FILE", "/does/not/exist", "cannot read /does/not/exist"),
    ],
)
def test_a_wrong_value_is_one_sentence(name: str, value: str, sentence: str) -> None:
    with pytest.raises(env.SettingError, match=re.escape(sentence)):
        env.read({name: value})


def test_a_wrong_secret_is_not_shown() -> None:
    with pytest.raises(env.SettingError) as caught:
        env.read({"CISERVER_DATABASE_URL": "mysql://root:hunter2@db/ci"})

    assert "hunter2" not in str(caught.value)


def test_typing_errors_are_found() -> None:
    environ = {"CISERVER_DATADIR": "x", "CISERVER_AGENT_NAME": "y", "CISERVER_TOKEN_FILE": "z"}

    assert env.unknown(environ) == ["CISERVER_DATADIR"]


@pytest.mark.parametrize(
    ("bind", "url"),
    [("0.0.0.0:80", "http://localhost:80"), ("[::1]:8000", "http://[::1]:8000")],
)
def test_the_public_address_follows_the_bind_address(bind: str, url: str) -> None:
    assert env.read({"CISERVER_BIND": bind}).public_url == url


def test_a_long_data_dir_gets_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)

    assert len(str(env.socket_path(deep))) < 100
    assert env.socket_path(Path("/srv/ci")) == Path("/srv/ci/redis.sock")


def test_passwords_are_left_out_of_shown_addresses() -> None:
    assert env.without_password("redis://me:secret@host:6379/1") == "redis://host:6379/1"


def test_the_documentation_has_every_setting() -> None:
    rows = re.findall(r"^\| `(CISERVER_\w+)` \| (.*?) \| (.*?) \|", DOCS.read_text(), re.MULTILINE)

    assert [(name, shown, text) for name, shown, text in rows] == [
        (row.variable, f"`{row.default}`" if row.default else "", row.help) for row in env.SETTINGS
    ]


def test_agents_elsewhere_get_an_address_they_can_reach(tmp_path: Path) -> None:
    keys.ensure(tmp_path)

    settings = env.read(
        {
            "CISERVER_DATA_DIR": str(tmp_path),
            "CISERVER_PUBLIC_URL": "https://ci.example.com",
            "CISERVER_REDIS_BIND": "0.0.0.0:6400",
        }
    )

    assert settings.agent_redis_url.startswith("redis://agents:")
    assert settings.agent_redis_url.endswith("@ci.example.com:6400/0")
    assert settings.local_agent_redis_url.startswith("redis+socket://agents:")


def test_the_certificate_of_redis_is_verified_unless_the_address_says_otherwise(
    tmp_path: Path,
) -> None:
    (tmp_path / "ca.pem").touch()
    known = {"CISERVER_REDIS_CA_FILE": str(tmp_path / "ca.pem")}
    authority = urlencode({"ssl_ca_certs": str(tmp_path / "ca.pem")})

    plain = env.read({"CISERVER_REDIS_URL": "rediss://h/0"})
    own = env.read({"CISERVER_REDIS_URL": "rediss://h/0", **known})
    said = env.read({"CISERVER_REDIS_URL": "rediss://h/0?ssl_cert_reqs=none", **known})

    assert plain.redis_url == "rediss://h/0?ssl_cert_reqs=required"
    assert own.redis_url == f"rediss://h/0?ssl_cert_reqs=required&{authority}"
    assert own.local_agent_redis_url == f"rediss://h/0?{authority}"
    assert own.agent_redis_url == "rediss://h/0"
    assert said.redis_url == f"rediss://h/0?ssl_cert_reqs=none&{authority}"
