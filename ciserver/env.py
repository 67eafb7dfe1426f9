"""The server's settings, read from the environment: the only place that reads it.

`SETTINGS` is the one table of them; `docs/settings.md` shows it and a test compares the two.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

from pipeline.routing import secured

PREFIX: Final = "CISERVER_"
#: Variables that begin with our prefix but belong to another program's table.
_FOREIGN: Final = ("CISERVER_AGENT_", "CISERVER_AUTOSCALER_")
#: Longer paths do not fit into a socket's address (108 bytes with the closing zero).
_LONGEST_SOCKET_PATH: Final = 100
#: Hosts of a bind address that mean every address of the machine.
WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
SERVER_USER: Final = "server"
AGENT_USER: Final = "agents"
#: Files in `keys/` with the passwords of those two users of the own Redis.
REDIS_KEYS: Final = ("redis_server", "redis_agents")


class SettingError(Exception):
    """A setting that cannot be used; the message names it and says what was expected."""


def _text(value: str) -> str:
    return value


def _directory(value: str) -> Path:
    return Path(value).expanduser().resolve()


def _file(value: str) -> str:
    return str(Path(value).expanduser().absolute()) if value else ""


def _readable(value: str) -> str:
    path = _file(value)
    if path and not (Path(path).is_file() and os.access(path, os.R_OK)):
        raise ValueError("there is no such file, or it cannot be read")
    return path


def _flag(value: str) -> bool:
    if value.lower() in ("true", "1", "yes", "on"):
        return True
    if value.lower() in ("false", "0", "no", "off", ""):
        return False
    raise ValueError("expected true or false")


def _words(value: str) -> tuple[str, ...]:
    return tuple(word for item in value.split(",") if (word := item.strip()))


def _address(value: str) -> str:
    if value and not _split_address(value):
        raise ValueError("expected host:port, such as 127.0.0.1:8000")
    return value


def _split_address(value: str) -> tuple[str, int] | None:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        return None
    return host.strip("[]"), int(port)


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value and urlsplit(value).scheme not in schemes:
            raise ValueError(
                "expected a URL that begins with "
                + " or ".join(f"{scheme}://" for scheme in schemes)
            )
        return value.rstrip("/")

    return parse


def _redis(value: str) -> str:
    url = _url("redis", "rediss", "redis+socket")(value)
    for said in parse_qs(urlsplit(url).query).get("ssl_cert_reqs", []):
        if said not in ("none", "optional", "required"):  # the words that all our libraries know
            raise ValueError("expected none, optional or required after ssl_cert_reqs=")
    return url


def _credentials(value: str) -> tuple[str, ...]:
    found = _words(value)
    for one in found:
        url = urlsplit(one)
        if url.scheme not in ("http", "https") or not (url.username and url.password):
            raise ValueError("expected https://user:password@host, further ones after commas")
    return found


def _log_store(value: str) -> str:
    if value not in ("", "database") and not re.fullmatch(r"s3://[^/]+(/.*)?", value):
        raise ValueError("expected `database` or `s3://bucket/prefix`")
    return value


def _number(least: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not value.isdecimal() or int(value) < least:
            raise ValueError(f"expected a whole number of at least {least}")
        return int(value)

    return parse


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in words:
            raise ValueError(f"expected one of {', '.join(words)}")
        return value

    return parse


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table: the variable is `CISERVER_` + `name` in capitals."""

    name: str
    default: str
    help: str
    parse: Callable[[str], Any] = _text
    #: Names under which the systems we replace know it.
    synonyms: tuple[str, ...] = ()
    #: Shown by no program, and also read from the file that `<variable>_FILE` names.
    secret: bool = False

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()


SETTINGS: Final = (
    Setting("data_dir", "data", "where everything is kept", _directory),
    Setting("bind", "127.0.0.1:8000", "the address of the web process", _address),
    Setting(
        "public_url",
        "",
        "the address people and agents use; empty: `http://` and `CISERVER_BIND`",
        _url("http", "https"),
    ),
    Setting("allowed_hosts", "", "further host names to answer to, separated by commas", _words),
    Setting(
        "database_url",
        "",
        "`postgres://user:password@host:port/name`; empty: SQLite files in the data dir",
        _url("postgres", "postgresql"),
        ("DRONE_DATABASE_DATASOURCE",),
        secret=True,
    ),
    Setting(
        "redis_url",
        "",
        "`redis://…`, `rediss://…` or `redis+socket://…`; empty: a Redis of its own",
        _redis,
        secret=True,
    ),
    Setting(
        "redis_ca_file",
        "",
        "PEM file of authorities that sign the certificate of a `rediss://`, besides the system's",
        _readable,
    ),
    Setting(
        "agent_redis_url",
        "",
        "the Redis URL handed to agents, of a restricted user",
        _redis,
        secret=True,
    ),
    Setting(
        "redis_bind",
        "",
        "`host:port` on which the own Redis also listens, for agents on other hosts",
        _address,
    ),
    Setting("secret_key", "", "signs sessions; empty: made at first start", secret=True),
    Setting(
        "encryption_keys",
        "",
        "Fernet keys that encrypt secrets at rest, newest first; empty: made at first start",
        _words,
        secret=True,
    ),
    Setting(
        "join_token",
        "",
        "what agents join with; empty: made at first start",
        synonyms=("DRONE_RPC_SECRET", "DRONE_AGENT_TOKEN"),
        secret=True,
    ),
    Setting(
        "user_create",
        "",
        "the first user, `username:octocat,admin:true,token:…`; empty: `admin`",
        synonyms=("DRONE_USER_CREATE",),
        secret=True,
    ),
    Setting(
        "subset_labels",
        "false",
        "whether agents of every repository may have more labels than a stage asks for",
        _flag,
    ),
    Setting("agent", "true", "whether `ci up` also starts an agent on this machine", _flag),
    Setting(
        "lanes",
        "4",
        "HTTP requests answered at a time, each with its own database connection",
        _number(1),
    ),
    Setting(
        "lease_report_s", "15", "how often an agent reports on a stage, in seconds", _number(1)
    ),
    Setting(
        "lease_lost_s",
        "45",
        "silence after which an agent is shown as lost, in seconds",
        _number(1),
    ),
    Setting(
        "lost_grace_s",
        "600",
        "how long a lost agent may come back with its result, in seconds",
        _number(0),
    ),
    Setting(
        "closing_s",
        "60",
        "how long a cancelled stage may still send its logs, in seconds",
        _number(0),
    ),
    Setting(
        "debug_min",
        "30",
        "minutes that a failed step of a build in debug waits for the next key; 0: it does not",
        _number(0),
    ),
    Setting(
        "debug_max_min",
        "240",
        "minutes that such a step is kept at most",
        _number(0),
    ),
    Setting(
        "log_store",
        "",
        "where finished logs go: `database`, or `s3://bucket/prefix`; empty: files in the data dir",
        _log_store,
    ),
    Setting(
        "log_store_endpoint",
        "",
        "the address of an S3-compatible service; empty: AWS",
        _url("http", "https"),
        ("DRONE_S3_ENDPOINT",),
    ),
    Setting(
        "artifact_limit_mb",
        "5120",
        "what the artifacts of one build may take together, in MiB",
        _number(0),
    ),
    Setting("artifact_days", "30", "how long artifacts are kept at most; 0: forever", _number(0)),
    Setting(
        "jsonnet_import_limit",
        "0",
        "files that a Jsonnet pipeline file may import; 0: none",
        _number(0),
        ("DRONE_JSONNET_IMPORT_LIMIT",),
    ),
    Setting(
        "starlark_step_limit",
        "50000",
        "steps that a Starlark pipeline file or a template may take",
        _number(1),
        ("DRONE_STARLARK_STEP_LIMIT",),
    ),
    Setting(
        "starlark_size_limit",
        "1000000",
        "bytes of the pipeline file that a program may make",
        _number(1),
        ("DRONE_STARLARK_SIZE_LIMIT",),
    ),
    Setting(
        "git_credentials",
        "",
        "`https://user:password@host` per git host with private repositories, by commas",
        _credentials,
        secret=True,
    ),
    Setting(
        "git_ssh_key",
        "",
        "the file of the private key for `ssh://`, without passphrase; empty: as `ssh` finds one",
        _file,
    ),
    Setting(
        "git_ssh_known_hosts",
        "",
        "the file of the keys of git hosts, the only ones trusted; empty: as `ssh` knows them",
        _file,
    ),
    Setting(
        "webhook_endpoint",
        "",
        "addresses that are told of every build's changes, by commas",
        _words,
        ("DRONE_WEBHOOK_ENDPOINT",),
    ),
    Setting(
        "webhook_secret",
        "",
        "signs what those addresses are sent",
        synonyms=("DRONE_WEBHOOK_SECRET",),
        secret=True,
    ),
    Setting(
        "server",
        "",
        "the server that `ci` talks to; empty: the one on the data dir",
        _url("http", "https"),
        ("DRONE_SERVER",),
    ),
    Setting(
        "token",
        "",
        "your token there; empty: the first user's of the data dir",
        synonyms=("DRONE_TOKEN",),
        secret=True,
    ),
    Setting(
        "log_level",
        "info",
        "`debug`, `info`, `warning` or `error`",
        _one_of("debug", "info", "warning", "error"),
    ),
    Setting(
        "log_format",
        "",
        "`json` or `console`; empty: console on a terminal",
        _one_of("", "json", "console"),
    ),
    Setting(
        "debug",
        "false",
        "Django's debug pages; never where others can reach it",
        _flag,
    ),
)


@dataclass(frozen=True, slots=True)
class Env:
    """What the environment says, with defaults filled in. Field names are those of `SETTINGS`."""

    data_dir: Path
    bind: str
    public_url: str
    allowed_hosts: tuple[str, ...]
    database_url: str
    #: As the server connects to it: with the parameters that say whom to trust.
    redis_url: str
    redis_ca_file: str
    #: As agents elsewhere are told it; whom to trust their own options say.
    agent_redis_url: str
    redis_bind: str
    secret_key: str
    encryption_keys: tuple[str, ...]
    join_token: str
    user_create: str
    subset_labels: bool
    agent: bool
    lanes: int
    lease_report_s: int
    lease_lost_s: int
    lost_grace_s: int
    closing_s: int
    debug_min: int
    debug_max_min: int
    log_store: str
    log_store_endpoint: str
    artifact_limit_mb: int
    artifact_days: int
    jsonnet_import_limit: int
    starlark_step_limit: int
    starlark_size_limit: int
    git_credentials: tuple[str, ...]
    git_ssh_key: str
    git_ssh_known_hosts: str
    webhook_endpoint: tuple[str, ...]
    webhook_secret: str
    server: str
    token: str
    log_level: str
    log_format: str
    debug: bool
    #: Whether `redis_url` is the Redis that `ci up` starts itself.
    own_redis: bool
    #: How the agent that `ci up` starts reaches Redis.
    local_agent_redis_url: str

    @property
    def host(self) -> str:
        return split_address(self.bind)[0]

    @property
    def port(self) -> int:
        return split_address(self.bind)[1]

    @property
    def keys_dir(self) -> Path:
        return self.data_dir / "keys"


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6]:port`."""
    found = _split_address(text)
    if found is None:
        raise SettingError(f"{text!r}: expected host:port")
    return found


def socket_path(data_dir: Path) -> Path:
    """Where the own Redis listens: in the data dir, or in a short path if that one is too long."""
    path = data_dir / "redis.sock"
    if len(str(path)) <= _LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(str(data_dir).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"ciserver-{os.getuid()}-{digest}" / "redis.sock"


def read(environ: Mapping[str, str] | None = None) -> Env:
    """The settings of `environ` (the process's own by default).

    Secrets that nobody gave are read from the data dir's `keys/`, where the first start put them.

    Raises: SettingError for a value that cannot be used.
    """
    given = os.environ if environ is None else environ
    values = {setting.name: _value(setting, given) for setting in SETTINGS}
    values["own_redis"] = not values["redis_url"]
    _fill_in(values)
    return Env(**{field.name: values[field.name] for field in fields(Env)})


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def child_environ() -> dict[str, str]:
    """The process's environment, to be given to a child."""
    return dict(os.environ)


def unknown(environ: Mapping[str, str] | None = None) -> list[str]:
    """Variables that carry our prefix but no known name: most likely typing errors."""
    known = {setting.variable for setting in SETTINGS}
    known |= {setting.variable + "_FILE" for setting in SETTINGS if setting.secret}
    return sorted(
        name
        for name in (os.environ if environ is None else environ)
        if name.startswith(PREFIX) and not name.startswith(_FOREIGN) and name not in known
    )


def _value(setting: Setting, environ: Mapping[str, str]) -> Any:
    for name in (setting.variable, *setting.synonyms):
        text = environ.get(name)
        if text is None and setting.secret and (file := environ.get(f"{name}_FILE")):
            text = _read_file(f"{name}_FILE", file)
        if text is not None:
            return _parse(setting, name, text)
    return _parse(setting, setting.variable, setting.default)


def _parse(setting: Setting, name: str, text: str) -> Any:
    try:
        return setting.parse(text)
    except ValueError as error:
        shown = "" if setting.secret else f", got {text!r}"
        raise SettingError(f"{name}: {error}{shown}") from None


def _read_file(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{name}: cannot read {path}: {error}") from None


def _fill_in(values: dict[str, Any]) -> None:
    keys = values["data_dir"] / "keys"
    values["public_url"] = values["public_url"] or _own_address(values["bind"])
    values["secret_key"] = values["secret_key"] or _key(keys, "secret_key")
    values["encryption_keys"] = values["encryption_keys"] or _words(_key(keys, "encryption_keys"))
    values["join_token"] = values["join_token"] or _key(keys, "join_token")
    if values["own_redis"]:
        values["redis_url"] = _own_url(values["data_dir"], SERVER_USER, _key(keys, REDIS_KEYS[0]))
    local, public = _agent_urls(values, _key(keys, REDIS_KEYS[1]))
    trusted = {"ssl_ca_certs": values["redis_ca_file"]} if values["redis_ca_file"] else {}
    values["local_agent_redis_url"] = secured(values["agent_redis_url"] or local, trusted)
    values["agent_redis_url"] = values["agent_redis_url"] or public
    # redis-py would verify by itself, kombu would not
    values["redis_url"] = secured(values["redis_url"], {"ssl_cert_reqs": "required", **trusted})


def _agent_urls(values: Mapping[str, Any], password: str) -> tuple[str, str]:
    """How an agent here, and one on another host, reaches Redis where nothing else was said."""
    if not values["own_redis"]:
        return values["redis_url"], values["redis_url"]
    local = _own_url(values["data_dir"], AGENT_USER, password)
    if not values["redis_bind"]:
        return local, local
    host = urlsplit(values["public_url"]).hostname or "localhost"
    port = split_address(values["redis_bind"])[1]
    shown = f"[{host}]" if ":" in host else host
    return local, f"redis://{AGENT_USER}:{quote(password, safe='')}@{shown}:{port}/0"


def _own_address(bind: str) -> str:
    host, port = split_address(bind)
    shown = "localhost" if host in WILDCARDS else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


def _key(directory: Path, name: str) -> str:
    try:
        return (directory / name).read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"cannot read {directory / name}: {error}") from None


def _own_url(data_dir: Path, user: str, password: str) -> str:
    return f"redis+socket://{user}:{quote(password, safe='')}@{socket_path(data_dir)}"
