"""Every option of the agent, once: flags, variables, file keys, help and documentation.

A row is a field of `Options`. Its key is the name of the field with dashes; the flag is `--key`,
the variable `CISERVER_AGENT_KEY`, the file key `key`. A `Synonym` is another agent's name for it.
A new option is one row here and nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

VARIABLE_PREFIX: Final = "CISERVER_AGENT_"
SEMAPHORE_PREFIX: Final = "SEMAPHORE_AGENT_"
MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB

Kind = Literal["text", "path", "flag", "number", "size", "duration", "list", "map"]


@dataclass(frozen=True, slots=True)
class Synonym:
    """A variable of another agent. `read` turns its text (and the environment) into ours.

    `separator` splits the key of a map's entry from its value; empty: as the row says. `spaces`:
    items of a list may also be separated by white space.
    """

    name: str
    read: Callable[[str, Mapping[str, str]], str] | None = None
    separator: str = ""
    spaces: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """How one option is given. `low` and `high` bound numbers, sizes and durations (inclusive)."""

    kind: Kind
    help: str
    synonyms: tuple[Synonym, ...] = ()
    #: Further flag and file names.
    aliases: tuple[str, ...] = ()
    secret: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    #: How entries of a map are split: at the first of these characters.
    separator: str = "=:"
    #: The default as the documentation shows it.
    shown: str = ""
    must_exist: bool = False


def _row(kind: Kind, default: Any, text: str, *drone: str | Synonym, **more: Any) -> Any:
    """A dataclass field that carries its row. `semaphore` adds the name of Semaphore's agent."""
    semaphore = more.pop("semaphore", False)
    synonyms = [name if isinstance(name, Synonym) else Synonym(name) for name in drone]
    row = Row(kind, text, tuple(synonyms), **more)
    metadata = {"row": row, "semaphore": semaphore}
    secret = row.secret
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata, repr=not secret)
    return field(default=default, metadata=metadata, repr=not secret)


def _text(default: str, text: str, *drone: str | Synonym, **more: Any) -> Any:
    return _row("text", default, text, *drone, **more)


def _path(default: str | Path, text: str, *drone: str | Synonym, **more: Any) -> Any:
    return _row("path", default, text, *drone, **more)


def _flag(default: bool, text: str, *drone: str | Synonym, **more: Any) -> Any:
    return _row("flag", default, text, *drone, **more)


def _number(default: int, text: str, *drone: str | Synonym, **more: Any) -> Any:
    return _row("number", default, text, *drone, **{"low": 0, **more})


def _size(default: int, text: str, *drone: str | Synonym, **more: Any) -> Any:
    return _row("size", default, text, *drone, **{"low": 0, **more})


def _duration(default: float, text: str, *drone: str | Synonym, **more: Any) -> Any:
    return _row("duration", default, text, *drone, **{"low": 0, **more})


def _list(default: tuple[str, ...], text: str, *drone: str | Synonym, **more: Any) -> Any:
    return _row("list", default, text, *drone, **more)


def _map(text: str, *drone: str | Synonym, **more: Any) -> Any:
    return _row("map", {}, text, *drone, **more)


def _with_proto(host: str, environ: Mapping[str, str]) -> str:
    """Drone's runner gives host and protocol apart; the protocol's default is http."""
    return host if "://" in host else f"{environ.get('DRONE_RPC_PROTO', 'http')}://{host}"


def _with_default_images(images: str, environ: Mapping[str, str]) -> str:
    """Drone's runner adds to the list of privileged images; ours is replaced as a whole."""
    del environ
    return ",".join((*PRIVILEGED_IMAGES, images))


def _from_kib(size: str, environ: Mapping[str, str]) -> str:
    """Semaphore's cache counts in KiB."""
    del environ
    return f"{size}KiB" if size.isdigit() else size


def _as_bind(port: str, environ: Mapping[str, str]) -> str:
    del environ
    return port if ":" in port else f":{port}"


_STATE_DIR: Final = Path("~/.ciserver-agent")
_UNSET: Final = Path()
PRIVILEGED_IMAGES: Final = (
    "plugins/docker",
    "plugins/acr",
    "plugins/ecr",
    "plugins/gcr",
    "plugins/heroku",
    "plugins/gar",
)

#: Headings of help and documentation: each begins at the field named.
GROUPS: Final = (
    ("Server", "config"),
    ("Identity and capacity", "name"),
    ("Life cycle", "backoff"),
    ("Hooks and environment of stages", "pre_job_hook_path"),
    ("Isolation and Docker", "isolation"),
    ("Policy", "plugin_pull"),
    ("Extensions", "env_plugin_endpoint"),
    ("Limits of containers", "memory"),
    ("Cache of steps", "cache_backend"),
    ("Logs and observation", "http_bind"),
    ("Directories and clean-up", "state_dir"),
    ("Accepted from other agents", "clone_image"),
)


@dataclass(frozen=True, slots=True)
class Options:
    """What an agent was told. Sizes are in bytes, durations in seconds, empty text means not set.

    `sources` says per field where its value came from; a field absent there has its default.
    """

    config: str = _path(
        "",
        "A YAML file of options, one key per option.",
        Synonym("SEMAPHORE_AGENT_CONFIG_FILE"),
        aliases=("config-file",),
        must_exist=True,
    )
    server: str = _text(
        "",
        "Address of the server. Required.",
        "DRONE_SERVER",
        "DRONE_RPC_SERVER",
        Synonym("DRONE_RPC_HOST", _with_proto),
        Synonym("SEMAPHORE_AGENT_ENDPOINT"),
        aliases=("endpoint",),
    )
    token: str = _text(
        "",
        "The join token the server printed at its first start. Required.",
        "DRONE_TOKEN",
        "DRONE_AGENT_TOKEN",
        "DRONE_RPC_SECRET",
        "DRONE_SECRET",
        semaphore=True,
        secret=True,
    )
    redis_url: str = _text(
        "",
        "Where tickets come from, if the address the server tells is not reachable from here.",
        shown="the server tells",
        secret=True,
    )
    no_https: bool = _flag(
        False, "Speak HTTP to a server whose address has no scheme.", semaphore=True
    )
    skip_verify: bool = _flag(
        False, "Do not verify the server's certificate. Dangerous.", "DRONE_RPC_SKIP_VERIFY"
    )
    ca_file: str = _path("", "Certificates to trust besides the system's.", must_exist=True)
    client_cert: str = _path("", "Certificate to present to the server.", must_exist=True)
    client_key: str = _path("", "The key of `client-cert`.", must_exist=True)
    http_proxy: str = _text("", "Proxy for HTTP: agent and steps.", "HTTP_PROXY", "http_proxy")
    https_proxy: str = _text("", "Proxy for HTTPS: agent and steps.", "HTTPS_PROXY", "https_proxy")
    no_proxy: str = _text(
        "", "Hosts reached without a proxy, comma separated.", "NO_PROXY", "no_proxy"
    )

    name: str = _text(
        "",
        "Name of this agent, 8 to 80 of A-Z a-z 0-9 . - _ / +",
        "DRONE_RUNNER_NAME",
        semaphore=True,
        shown="made at the first start and kept",
    )
    name_from_env: str = _text("", "The variable that holds the name.", semaphore=True)
    job_id: int = _number(
        0,
        "Run only the stage with this id, then leave; needs `disconnect-after-job`.",
        semaphore=True,
        shown="any",
    )
    concurrency: int = _number(
        2,
        "How many stages run at once.",
        "DRONE_RUNNER_CAPACITY",
        "DRONE_AGENT_CONCURRENCY",
        "DRONE_MAX_PROCS",
        "DOCKER_MAX_PROCS",
        low=1,
        high=1000,
    )
    max_procs: int = _number(
        0, "How many steps run at once over all stages; 0: no limit.", "DRONE_RUNNER_MAX_PROCS"
    )
    os: str = _text("linux", "Operating system of stages.", "DRONE_PLATFORM_OS", "DOCKER_OS")
    arch: str = _text(
        "amd64",
        "Architecture of stages.",
        "DRONE_PLATFORM_ARCH",
        "DOCKER_ARCH",
        "DOKCER_ARCH",
        shown="this machine's",
    )
    variant: str = _text("", "Variant of the architecture, such as v7.", "DRONE_PLATFORM_VARIANT")
    kernel: str = _text("", "Version of the kernel stages may ask for.", "DRONE_PLATFORM_KERNEL")
    labels: Mapping[str, str] = _map("What stages may ask for by `node`.", "DRONE_RUNNER_LABELS")

    backoff: float = _duration(
        15.0,
        "Longest first wait before a lost connection is tried again; waits double.",
        "DRONE_BACKOFF",
        low=0.01,
    )
    backoff_max: float = _duration(300.0, "The wait never grows beyond this.", low=0.01)
    sync_timeout: float = _duration(
        600.0, "Drain and leave after this long without the server; 0: never."
    )
    disconnect_after_job: bool = _flag(False, "Run one stage, then leave.", semaphore=True)
    disconnect_after_idle_timeout: float = _duration(
        0.0, "Leave after this long without work; 0: never.", semaphore=True
    )
    interruption_grace_period: float = _duration(
        0.0,
        "After a termination signal, cancel stages that still run after this long; 0: never.",
        semaphore=True,
    )
    notify_socket: str = _text(
        "", "Where systemd waits for word that the agent works; it sets this.", "NOTIFY_SOCKET"
    )
    spot_notices: bool = _flag(
        False, "Watch for EC2 spot interruption notices and drain when one comes."
    )
    spot_endpoint: str = _text(
        "http://169.254.169.254", "Where the instance metadata of `spot-notices` is."
    )

    pre_job_hook_path: str = _path("", "Script before the steps of each stage.", semaphore=True)
    fail_on_pre_job_hook_error: bool = _flag(
        False, "A failing pre-job hook fails the stage.", semaphore=True
    )
    source_pre_job_hook: bool = _flag(
        False, "Source the pre-job hook: variables it exports reach the steps.", semaphore=True
    )
    post_job_hook_path: str = _path("", "Script after the steps of each stage.", semaphore=True)
    shutdown_hook_path: str = _path("", "Script after the agent has left.", semaphore=True)
    env_vars: Mapping[str, str] = _map(
        "Variables for every step, NAME=VALUE, split at the first `=`.",
        Synonym("DRONE_RUNNER_ENVIRON", separator=":"),
        semaphore=True,
        separator="=",
    )
    env_file: str = _path(
        "",
        "A file of NAME=VALUE lines for every step; beats `env-vars`.",
        "DRONE_RUNNER_ENV_FILE",
        "DRONE_RUNNER_ENVFILE",
        "DRONE_AGENT_ENV_FILE",
        must_exist=True,
    )
    secrets: Mapping[str, str] = _map(
        "Secrets of this agent, NAME=VALUE; never for pull requests.",
        Synonym("DRONE_RUNNER_SECRETS", separator=":"),
        secret=True,
    )
    files: tuple[str, ...] = _list(
        (), "Files of the host put into containers, HOST:CONTAINER.", semaphore=True
    )
    fail_on_missing_files: bool = _flag(
        False, "A missing one of `files` fails the stage.", semaphore=True
    )
    upload_job_logs: str = _text(
        "never",
        "Upload a stage's log as an artifact.",
        semaphore=True,
        choices=("never", "when-trimmed", "always"),
    )
    logs_compression_size: int = _size(
        100 * MIB,
        "Uploaded logs from this size on are compressed.",
        semaphore=True,
        low=MIB,
        high=GIB,
    )
    max_log_size: int = _size(
        100 * MIB, "Longest log of a step; beyond it the middle is left out.", low=64 * 1024
    )

    isolation: str = _text(
        "auto",
        "Where steps run: `docker` in containers only, `shell` on the host only, `auto` docker "
        "stages in containers where an engine answers and exec stages on the host.",
        choices=("auto", "docker", "shell"),
    )
    exec_user: str = _text(
        "", "User that steps on the host run as; needs an agent that is root.", shown="the agent's"
    )
    exec_untrusted: bool = _flag(
        False,
        "Stages of untrusted repositories may run on the host as the agent's own user. Only where "
        "everybody who can push may do anything on this host.",
    )
    docker_host: str = _text(
        "unix:///var/run/docker.sock", "Address of the Docker engine.", "DOCKER_HOST"
    )
    docker_tls_verify: bool = _flag(False, "Verify the engine's certificate.", "DOCKER_TLS_VERIFY")
    docker_cert_path: str = _path(
        "",
        "Directory with ca.pem, cert.pem and key.pem for the engine.",
        "DOCKER_CERT_PATH",
        must_exist=True,
    )
    docker_config: str = _path(
        "",
        "A Docker config.json with logins of registries.",
        "DRONE_DOCKER_CONFIG",
        must_exist=True,
    )
    docker_stream_pull: bool = _flag(
        True, "Show the progress of image pulls in the step's log.", "DRONE_DOCKER_STREAM_PULL"
    )
    volumes: tuple[str, ...] = _list(
        (), "Host paths in every container, HOST:CONTAINER[:ro].", "DRONE_RUNNER_VOLUMES"
    )
    devices: tuple[str, ...] = _list(
        (), "Host devices in every container, HOST[:CONTAINER].", "DRONE_RUNNER_DEVICES"
    )
    networks: tuple[str, ...] = _list(
        (), "Networks every container joins too.", "DRONE_RUNNER_NETWORKS"
    )
    network_opts: Mapping[str, str] = _map(
        "Driver options of the stage's network.", "DRONE_RUNNER_NETWORK_OPTS"
    )

    plugin_pull: bool = _flag(False, "Always pull images of plugins.", "DRONE_PLUGIN_PULL")
    plugin_namespace: str = _text(
        "", "Put before the name of a plugin that has no slash.", "DRONE_PLUGIN_NAMESPACE"
    )
    plugin_whitelist: tuple[str, ...] = _list(
        (), "Patterns of images that plugins may use; empty: all.", "DRONE_PLUGIN_WHITELIST"
    )
    plugin_privileged: tuple[str, ...] = _list(
        PRIVILEGED_IMAGES,
        "Plugins that run privileged.",
        "DRONE_PLUGIN_PRIVILEGED",
        Synonym("DRONE_RUNNER_PRIVILEGED_IMAGES", _with_default_images),
    )
    plugin_netrc: tuple[str, ...] = _list(
        (), "Plugins that may see git's credentials; empty: all steps.", "DRONE_PLUGIN_NETRC"
    )
    netrc_clone_only: bool = _flag(
        False, "Only the clone sees git's credentials.", "DRONE_NETRC_CLONE_ONLY"
    )
    allow_privileged: bool = _flag(
        True, "Trusted repositories may run privileged containers on this agent."
    )
    allow_host_volumes: bool = _flag(
        True, "Trusted repositories may mount host paths on this agent."
    )
    limit_repos: tuple[str, ...] = _list(
        (), "Patterns of repositories this agent builds; empty: all.", "DRONE_LIMIT_REPOS"
    )
    limit_events: tuple[str, ...] = _list(
        (), "Patterns of events this agent builds; empty: all.", "DRONE_LIMIT_EVENTS"
    )
    limit_trusted: bool = _flag(False, "Build only trusted repositories.", "DRONE_LIMIT_TRUSTED")

    env_plugin_endpoint: str = _text(
        "", "Address of an extension to ask for variables for steps.", "DRONE_ENV_PLUGIN_ENDPOINT"
    )
    env_plugin_token: str = _text(
        "", "Key that signs calls to it.", "DRONE_ENV_PLUGIN_TOKEN", secret=True
    )
    env_plugin_skip_verify: bool = _flag(
        False, "Do not verify its certificate.", "DRONE_ENV_PLUGIN_SKIP_VERIFY"
    )
    secret_plugin_endpoint: str = _text(
        "",
        "Address of an extension to ask for secrets the server does not have.",
        "DRONE_SECRET_PLUGIN_ENDPOINT",
    )
    secret_plugin_token: str = _text(
        "", "Key that signs calls to it.", "DRONE_SECRET_PLUGIN_TOKEN", secret=True
    )
    secret_plugin_skip_verify: bool = _flag(
        False, "Do not verify its certificate.", "DRONE_SECRET_PLUGIN_SKIP_VERIFY"
    )
    registry_plugin_endpoint: str = _text(
        "",
        "Address of an extension to ask for logins of registries.",
        "DRONE_REGISTRY_PLUGIN_ENDPOINT",
    )
    registry_plugin_token: str = _text(
        "", "Key that signs calls to it.", "DRONE_REGISTRY_PLUGIN_TOKEN", secret=True
    )
    registry_plugin_skip_verify: bool = _flag(
        False, "Do not verify its certificate.", "DRONE_REGISTRY_PLUGIN_SKIP_VERIFY"
    )

    memory: int = _size(0, "Memory of each container; 0: no limit.", "DRONE_MEMORY_LIMIT")
    memory_swap: int = _size(
        0, "Memory and swap of each container; 0: no limit.", "DRONE_MEMORY_SWAP_LIMIT"
    )
    shm_size: int = _size(0, "Size of /dev/shm; 0: the engine's default.", "DRONE_SHM_SIZE")
    cpu_quota: int = _number(
        0, "CPU time in microseconds per `cpu-period`; 0: no limit.", "DRONE_CPU_QUOTA"
    )
    cpu_period: int = _number(
        0, "Period of `cpu-quota` in microseconds.", "DRONE_CPU_PERIOD", high=1_000_000
    )
    cpu_shares: int = _number(0, "Relative weight of CPU time; 0: normal.", "DRONE_CPU_SHARES")
    cpu_set: str = _text("", "CPUs containers may use, such as 0-1,3.", "DRONE_CPU_SET")

    cache_backend: str = _text(
        "",
        "Where trees that steps `cache` are kept.",
        "SEMAPHORE_CACHE_BACKEND",
        choices=("directory", "s3"),
        shown="`directory`; `s3` with `cache-s3-bucket`",
    )
    cache_dir: Path = _path(  # noqa: RUF009 - it makes a field
        _UNSET, "The directory of the cache.", shown="`cache` in `state-dir`"
    )
    cache_size: int = _size(
        9 * GIB,
        "What the cache of one repository may take; beyond it old archives go; 0: no limit.",
        Synonym("CACHE_SIZE", _from_kib),
    )
    cache_project_id: str = _text(
        "",
        "Keep all caches under this name. Only where all repositories trust each other.",
        "SEMAPHORE_PROJECT_ID",
        shown="one per repository",
    )
    cache_s3_bucket: str = _text(
        "", "Bucket of the cache.", "SEMAPHORE_CACHE_S3_BUCKET", "SEMAPHORE_AGENT_CACHE_BUCKET_NAME"
    )
    cache_s3_url: str = _text(
        "", "Address of a store that speaks S3.", "SEMAPHORE_CACHE_S3_URL", shown="Amazon's"
    )
    cache_s3_key: str = _text(
        "",
        "Key id for the bucket.",
        "SEMAPHORE_CACHE_S3_KEY",
        shown="the host's credentials",
        secret=True,
    )
    cache_s3_secret: str = _text(
        "", "The secret of `cache-s3-key`.", "SEMAPHORE_CACHE_S3_SECRET", secret=True
    )
    cache_aws_profile: str = _text(
        "", "Profile in ~/.aws to take credentials from.", "SEMAPHORE_CACHE_AWS_PROFILE"
    )
    cache_use_ec2_instance_profile: bool = _flag(
        False,
        "Take credentials from the instance's role only.",
        "SEMAPHORE_CACHE_USE_EC2_INSTANCE_PROFILE",
    )
    cache_archive_method: str = _text(
        "zstd",
        "How archives are packed; all but `zstd` make gzip, which the original reads.",
        "SEMAPHORE_CACHE_ARCHIVE_METHOD",
        choices=("zstd", "gzip", "shell-out", "native", "native-parallel"),
    )
    cache_fail_on_error: bool = _flag(
        True,
        "A store or restore that fails by a fault of the cache fails its step.",
        "CACHE_FAIL_ON_ERROR",
    )
    cache_metrics_enabled: bool = _flag(
        False,
        "Write the original's metrics to /tmp/toolbox_metrics in steps.",
        "SEMAPHORE_TOOLBOX_METRICS_ENABLED",
    )

    http_bind: str = _text(
        "",
        "Serve a status page and /healthz on this address.",
        "DRONE_HTTP_BIND",
        Synonym("DRONE_SERVER_PORT", _as_bind),
        shown="off; `:3000` with `ui-password`",
    )
    ui_username: str = _text("", "User of the status page.", "DRONE_UI_USERNAME")
    ui_password: str = _text("", "Password of the status page.", "DRONE_UI_PASSWORD", secret=True)
    ui_realm: str = _text("MyRealm", "Realm of the status page.", "DRONE_UI_REALM")
    debug: bool = _flag(False, "Log more: the same as `log-level` debug.", "DRONE_DEBUG")
    trace: bool = _flag(False, "Log most: `log-level` trace, and `rpc-dump-http`.", "DRONE_TRACE")
    log_level: str = _text(
        "info",
        "How much is logged.",
        semaphore=True,
        choices=("trace", "debug", "info", "warning", "error"),
    )
    log_file: str = _path(
        "",
        "Log to this file instead of standard error.",
        Synonym("SEMAPHORE_AGENT_LOG_FILE_PATH"),
    )
    rpc_dump_http: bool = _flag(
        False, "Log every call to the server and how it was answered.", "DRONE_RPC_DUMP_HTTP"
    )
    rpc_dump_http_body: bool = _flag(
        False,
        "Log what is said in these calls as well. There are secrets in it.",
        "DRONE_RPC_DUMP_HTTP_BODY",
    )

    state_dir: Path = _path(  # noqa: RUF009 - it makes a field
        _STATE_DIR,
        "Where identity and unsent logs are kept.",
        shown="`~/.ciserver-agent`",
    )
    work_dir: Path = _path(  # noqa: RUF009 - it makes a field
        _UNSET, "Where workspaces and git mirrors are.", shown="`work` in `state-dir`"
    )
    disk_free_min: int = _size(
        512 * MIB, "Take no work while less than this is free in `work-dir`; 0: do not look."
    )
    clean_interval: float = _duration(
        3600.0, "How often images and volumes are cleaned up; 0: never."
    )
    clean_age: float = _duration(0.0, "Remove images unused for this long; 0: never for their age.")
    clean_size: int = _size(0, "Remove the longest unused images beyond this total; 0: no limit.")
    clean_ignore: tuple[str, ...] = _list((), "Patterns of images that are never removed.")

    clone_image: str = _text(
        "", "No effect: the agent clones by itself.", "DRONE_RUNNER_CLONE_IMAGE"
    )
    defer_tail_log: bool = _flag(
        False, "No effect: logs are live and kept on disk.", "DRONE_DEFER_TAIL_LOG"
    )
    tmate_enabled: bool = _flag(
        False, "No effect: builds in debug open a shell in the browser.", "DRONE_TMATE_ENABLED"
    )
    tmate_image: str = _text("", "No effect, see `tmate-enabled`.", "DRONE_TMATE_IMAGE")
    tmate_host: str = _text("", "No effect, see `tmate-enabled`.", "DRONE_TMATE_HOST")
    tmate_port: str = _text("", "No effect, see `tmate-enabled`.", "DRONE_TMATE_PORT")
    tmate_fingerprint_rsa: str = _text(
        "", "No effect, see `tmate-enabled`.", "DRONE_TMATE_FINGERPRINT_RSA"
    )
    tmate_fingerprint_ed25519: str = _text(
        "", "No effect, see `tmate-enabled`.", "DRONE_TMATE_FINGERPRINT_ED25519"
    )
    tmate_authorized_keys: str = _text(
        "", "No effect, see `tmate-enabled`.", "DRONE_TMATE_AUTHORIZED_KEYS"
    )

    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def types(self) -> tuple[str, ...]:
        """Types of pipeline the isolation allows; `docker` still needs an engine that answers."""
        return {"docker": ("docker",), "shell": ("exec",)}.get(self.isolation, ("docker", "exec"))


@dataclass(frozen=True, slots=True)
class Entry:
    """A row with its names: what flags, variables and file keys are made of."""

    field: str
    key: str
    row: Row
    default: Any

    @property
    def variable(self) -> str:
        return VARIABLE_PREFIX + self.field.upper()

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key, *self.row.aliases)


def entries() -> dict[str, Entry]:
    """All options by key, in the order of the table."""
    found = {}
    for item in dataclasses.fields(Options):
        row = item.metadata.get("row")
        if row is None:
            continue
        if item.metadata["semaphore"]:
            theirs = Synonym(SEMAPHORE_PREFIX + item.name.upper(), spaces=row.kind == "list")
            row = dataclasses.replace(row, synonyms=(*row.synonyms, theirs))
        default = {} if item.default is dataclasses.MISSING else item.default
        key = item.name.replace("_", "-")
        found[key] = Entry(item.name, key, row, default)
    return found
