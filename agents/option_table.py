"""Every option of the agent, once: flags, variables, file keys, help and documentation.

A row is a field of `Options`. Its key is the name of the field with dashes; the flag is `--key`,
the variable `CISERVER_AGENT_KEY`, the file key `key`. A `Synonym` is another agent's name for it.
A new option is one row here and nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agents.option_rows import (
    GIB,
    MIB,
    Row,
    Synonym,
    duration_row,
    flag_row,
    list_row,
    map_row,
    number_row,
    path_row,
    size_row,
    text_row,
)

VARIABLE_PREFIX: Final = "CISERVER_AGENT_"
SEMAPHORE_PREFIX: Final = "SEMAPHORE_AGENT_"


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
    ("Clone", "git_ssh_key"),
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

    config: str = path_row(
        "",
        "A YAML file of options, one key per option.",
        Synonym("SEMAPHORE_AGENT_CONFIG_FILE"),
        aliases=("config-file",),
        must_exist=True,
    )
    server: str = text_row(
        "",
        "Address of the server. Required.",
        "DRONE_SERVER",
        "DRONE_RPC_SERVER",
        Synonym("DRONE_RPC_HOST", _with_proto),
        Synonym("SEMAPHORE_AGENT_ENDPOINT"),
        aliases=("endpoint",),
    )
    token: str = text_row(
        "",
        "The join token the server printed at its first start. Required.",
        "DRONE_TOKEN",
        "DRONE_AGENT_TOKEN",
        "DRONE_RPC_SECRET",
        "DRONE_SECRET",
        semaphore=True,
        secret=True,
    )
    redis_url: str = text_row(
        "",
        "Where tickets come from, if the address the server tells is not reachable from here.",
        shown="the server tells",
        secret=True,
    )
    no_https: bool = flag_row(
        False, "Speak HTTP to a server whose address has no scheme.", semaphore=True
    )
    skip_verify: bool = flag_row(
        False, "Trust any certificate of server and Redis. Dangerous.", "DRONE_RPC_SKIP_VERIFY"
    )
    ca_file: str = path_row("", "Certificates to trust besides the system's.", must_exist=True)
    client_cert: str = path_row("", "Certificate for the server and Redis.", must_exist=True)
    client_key: str = path_row("", "The key of `client-cert`.", must_exist=True)
    http_proxy: str = text_row("", "Proxy for HTTP: agent and steps.", "HTTP_PROXY", "http_proxy")
    https_proxy: str = text_row(
        "", "Proxy for HTTPS: agent and steps.", "HTTPS_PROXY", "https_proxy"
    )
    no_proxy: str = text_row(
        "", "Hosts reached without a proxy, comma separated.", "NO_PROXY", "no_proxy"
    )

    name: str = text_row(
        "",
        "Name of this agent, 8 to 80 of A-Z a-z 0-9 . - _ / +",
        "DRONE_RUNNER_NAME",
        semaphore=True,
        shown="made at the first start and kept",
    )
    name_from_env: str = text_row("", "The variable that holds the name.", semaphore=True)
    job_id: int = number_row(
        0,
        "Run only the stage with this id, then leave; needs `disconnect-after-job`.",
        semaphore=True,
        shown="any",
    )
    concurrency: int = number_row(
        2,
        "How many stages run at once.",
        "DRONE_RUNNER_CAPACITY",
        "DRONE_AGENT_CONCURRENCY",
        "DRONE_MAX_PROCS",
        "DOCKER_MAX_PROCS",
        low=1,
        high=1000,
    )
    max_procs: int = number_row(
        0, "How many steps run at once over all stages; 0: no limit.", "DRONE_RUNNER_MAX_PROCS"
    )
    os: str = text_row("linux", "Operating system of stages.", "DRONE_PLATFORM_OS", "DOCKER_OS")
    arch: str = text_row(
        "amd64",
        "Architecture of stages.",
        "DRONE_PLATFORM_ARCH",
        "DOCKER_ARCH",
        "DOKCER_ARCH",
        shown="this machine's",
    )
    variant: str = text_row(
        "", "Variant of the architecture, such as v7.", "DRONE_PLATFORM_VARIANT"
    )
    kernel: str = text_row("", "Version of the kernel stages may ask for.", "DRONE_PLATFORM_KERNEL")
    labels: Mapping[str, str] = map_row("What stages may ask for by `node`.", "DRONE_RUNNER_LABELS")

    backoff: float = duration_row(
        15.0,
        "Longest first wait before a lost connection is tried again; waits double.",
        "DRONE_BACKOFF",
        low=0.01,
    )
    backoff_max: float = duration_row(300.0, "The wait never grows beyond this.", low=0.01)
    sync_timeout: float = duration_row(
        600.0, "Drain and leave after this long without the server; 0: never."
    )
    disconnect_after_job: bool = flag_row(False, "Run one stage, then leave.", semaphore=True)
    disconnect_after_idle_timeout: float = duration_row(
        0.0, "Leave after this long without work; 0: never.", semaphore=True
    )
    interruption_grace_period: float = duration_row(
        0.0,
        "After a termination signal, cancel stages that still run after this long; 0: never.",
        semaphore=True,
    )
    notify_socket: str = text_row(
        "", "Where systemd waits for word that the agent works; it sets this.", "NOTIFY_SOCKET"
    )
    spot_notices: bool = flag_row(
        False, "Watch for EC2 spot interruption notices and drain when one comes."
    )
    spot_endpoint: str = text_row(
        "http://169.254.169.254", "Where the instance metadata of `spot-notices` is."
    )

    pre_job_hook_path: str = path_row("", "Script before the steps of each stage.", semaphore=True)
    fail_on_pre_job_hook_error: bool = flag_row(
        False, "A failing pre-job hook fails the stage.", semaphore=True
    )
    source_pre_job_hook: bool = flag_row(
        False, "Source the pre-job hook: variables it exports reach the steps.", semaphore=True
    )
    post_job_hook_path: str = path_row("", "Script after the steps of each stage.", semaphore=True)
    shutdown_hook_path: str = path_row("", "Script after the agent has left.", semaphore=True)
    env_vars: Mapping[str, str] = map_row(
        "Variables for every step, NAME=VALUE, split at the first `=`.",
        Synonym("DRONE_RUNNER_ENVIRON", separator=":"),
        semaphore=True,
        separator="=",
    )
    env_file: str = path_row(
        "",
        "A file of NAME=VALUE lines for every step; beats `env-vars`.",
        "DRONE_RUNNER_ENV_FILE",
        "DRONE_RUNNER_ENVFILE",
        "DRONE_AGENT_ENV_FILE",
        must_exist=True,
    )
    secrets: Mapping[str, str] = map_row(
        "Secrets of this agent, NAME=VALUE; never for pull requests.",
        Synonym("DRONE_RUNNER_SECRETS", separator=":"),
        secret=True,
    )
    files: tuple[str, ...] = list_row(
        (), "Files of the host put into containers, HOST:CONTAINER.", semaphore=True
    )
    fail_on_missing_files: bool = flag_row(
        False, "A missing one of `files` fails the stage.", semaphore=True
    )
    upload_job_logs: str = text_row(
        "never",
        "Upload a stage's log as an artifact.",
        semaphore=True,
        choices=("never", "when-trimmed", "always"),
    )
    logs_compression_size: int = size_row(
        100 * MIB,
        "Uploaded logs from this size on are compressed.",
        semaphore=True,
        low=MIB,
        high=GIB,
    )
    max_log_size: int = size_row(
        100 * MIB, "Longest log of a step; beyond it the middle is left out.", low=64 * 1024
    )

    git_ssh_key: str = path_row(
        "", "The private key for `ssh://`; empty: as `ssh` finds one.", must_exist=True
    )
    git_ssh_known_hosts: str = path_row(
        "", "Keys of git hosts, the only ones trusted; empty: as `ssh` knows them.", must_exist=True
    )

    isolation: str = text_row(
        "auto",
        "Where steps run: `docker` in containers only, `shell` on the host only, `auto` docker "
        "stages in containers where an engine answers and exec stages on the host.",
        choices=("auto", "docker", "shell"),
    )
    exec_user: str = text_row(
        "", "User that steps on the host run as; needs an agent that is root.", shown="the agent's"
    )
    exec_untrusted: bool = flag_row(
        False,
        "Stages of untrusted repositories may run on the host as the agent's own user. Only where "
        "everybody who can push may do anything on this host.",
    )
    docker_host: str = text_row(
        "unix:///var/run/docker.sock", "Address of the Docker engine.", "DOCKER_HOST"
    )
    docker_tls_verify: bool = flag_row(
        False, "Verify the engine's certificate.", "DOCKER_TLS_VERIFY"
    )
    docker_cert_path: str = path_row(
        "",
        "Directory with ca.pem, cert.pem and key.pem for the engine.",
        "DOCKER_CERT_PATH",
        must_exist=True,
    )
    docker_config: str = path_row(
        "",
        "A Docker config.json with logins of registries.",
        "DRONE_DOCKER_CONFIG",
        must_exist=True,
    )
    docker_stream_pull: bool = flag_row(
        True, "Show the progress of image pulls in the step's log.", "DRONE_DOCKER_STREAM_PULL"
    )
    volumes: tuple[str, ...] = list_row(
        (), "Host paths in every container, HOST:CONTAINER[:ro].", "DRONE_RUNNER_VOLUMES"
    )
    devices: tuple[str, ...] = list_row(
        (), "Host devices in every container, HOST[:CONTAINER].", "DRONE_RUNNER_DEVICES"
    )
    networks: tuple[str, ...] = list_row(
        (), "Networks every container joins too.", "DRONE_RUNNER_NETWORKS"
    )
    network_opts: Mapping[str, str] = map_row(
        "Driver options of the stage's network.", "DRONE_RUNNER_NETWORK_OPTS"
    )

    plugin_pull: bool = flag_row(False, "Always pull images of plugins.", "DRONE_PLUGIN_PULL")
    plugin_namespace: str = text_row(
        "", "Put before the name of a plugin that has no slash.", "DRONE_PLUGIN_NAMESPACE"
    )
    plugin_whitelist: tuple[str, ...] = list_row(
        (), "Patterns of images that plugins may use; empty: all.", "DRONE_PLUGIN_WHITELIST"
    )
    plugin_privileged: tuple[str, ...] = list_row(
        PRIVILEGED_IMAGES,
        "Plugins that run privileged.",
        "DRONE_PLUGIN_PRIVILEGED",
        Synonym("DRONE_RUNNER_PRIVILEGED_IMAGES", _with_default_images),
    )
    plugin_netrc: tuple[str, ...] = list_row(
        (), "Plugins that may see git's credentials; empty: all steps.", "DRONE_PLUGIN_NETRC"
    )
    netrc_clone_only: bool = flag_row(
        False, "Only the clone sees git's credentials.", "DRONE_NETRC_CLONE_ONLY"
    )
    allow_privileged: bool = flag_row(
        True, "Trusted repositories may run privileged containers on this agent."
    )
    allow_host_volumes: bool = flag_row(
        True, "Trusted repositories may mount host paths on this agent."
    )
    allow_host_network: bool = flag_row(
        True, "Trusted repositories may join the host's or another container's network by name."
    )
    limit_repos: tuple[str, ...] = list_row(
        (), "Patterns of repositories this agent builds; empty: all.", "DRONE_LIMIT_REPOS"
    )
    limit_events: tuple[str, ...] = list_row(
        (), "Patterns of events this agent builds; empty: all.", "DRONE_LIMIT_EVENTS"
    )
    limit_trusted: bool = flag_row(False, "Build only trusted repositories.", "DRONE_LIMIT_TRUSTED")
    debug_limit: float = duration_row(
        14400.0,
        "How long a failed step of a build in debug is kept at most, whatever the server says; "
        "0: never.",
    )

    env_plugin_endpoint: str = text_row(
        "", "Address of an extension to ask for variables for steps.", "DRONE_ENV_PLUGIN_ENDPOINT"
    )
    env_plugin_token: str = text_row(
        "", "Key that signs calls to it.", "DRONE_ENV_PLUGIN_TOKEN", secret=True
    )
    env_plugin_skip_verify: bool = flag_row(
        False, "Do not verify its certificate.", "DRONE_ENV_PLUGIN_SKIP_VERIFY"
    )
    secret_plugin_endpoint: str = text_row(
        "",
        "Address of an extension to ask for secrets the server does not have.",
        "DRONE_SECRET_PLUGIN_ENDPOINT",
    )
    secret_plugin_token: str = text_row(
        "", "Key that signs calls to it.", "DRONE_SECRET_PLUGIN_TOKEN", secret=True
    )
    secret_plugin_skip_verify: bool = flag_row(
        False, "Do not verify its certificate.", "DRONE_SECRET_PLUGIN_SKIP_VERIFY"
    )
    registry_plugin_endpoint: str = text_row(
        "",
        "Address of an extension to ask for logins of registries.",
        "DRONE_REGISTRY_PLUGIN_ENDPOINT",
    )
    registry_plugin_token: str = text_row(
        "", "Key that signs calls to it.", "DRONE_REGISTRY_PLUGIN_TOKEN", secret=True
    )
    registry_plugin_skip_verify: bool = flag_row(
        False, "Do not verify its certificate.", "DRONE_REGISTRY_PLUGIN_SKIP_VERIFY"
    )

    memory: int = size_row(0, "Memory of each container; 0: no limit.", "DRONE_MEMORY_LIMIT")
    memory_swap: int = size_row(
        0, "Memory and swap of each container; 0: no limit.", "DRONE_MEMORY_SWAP_LIMIT"
    )
    shm_size: int = size_row(0, "Size of /dev/shm; 0: the engine's default.", "DRONE_SHM_SIZE")
    cpu_quota: int = number_row(
        0, "CPU time in microseconds per `cpu-period`; 0: no limit.", "DRONE_CPU_QUOTA"
    )
    cpu_period: int = number_row(
        0, "Period of `cpu-quota` in microseconds.", "DRONE_CPU_PERIOD", high=1_000_000
    )
    cpu_shares: int = number_row(0, "Relative weight of CPU time; 0: normal.", "DRONE_CPU_SHARES")
    cpu_set: str = text_row("", "CPUs containers may use, such as 0-1,3.", "DRONE_CPU_SET")

    cache_backend: str = text_row(
        "",
        "Where trees that steps `cache` are kept.",
        "SEMAPHORE_CACHE_BACKEND",
        choices=("directory", "s3"),
        shown="`directory`; `s3` with `cache-s3-bucket`",
    )
    cache_dir: Path = path_row(  # noqa: RUF009 - it makes a field
        _UNSET, "The directory of the cache.", shown="`cache` in `state-dir`"
    )
    cache_size: int = size_row(
        9 * GIB,
        "What the cache of one repository may take; beyond it old archives go; 0: no limit.",
        Synonym("CACHE_SIZE", _from_kib),
    )
    cache_project_id: str = text_row(
        "",
        "Keep all caches under this name. Only where all repositories trust each other.",
        "SEMAPHORE_PROJECT_ID",
        shown="one per repository",
    )
    cache_s3_bucket: str = text_row(
        "", "Bucket of the cache.", "SEMAPHORE_CACHE_S3_BUCKET", "SEMAPHORE_AGENT_CACHE_BUCKET_NAME"
    )
    cache_s3_url: str = text_row(
        "", "Address of a store that speaks S3.", "SEMAPHORE_CACHE_S3_URL", shown="Amazon's"
    )
    cache_s3_key: str = text_row(
        "",
        "Key id for the bucket.",
        "SEMAPHORE_CACHE_S3_KEY",
        shown="the host's credentials",
        secret=True,
    )
    cache_s3_secret: str = text_row(
        "", "The secret of `cache-s3-key`.", "SEMAPHORE_CACHE_S3_SECRET", secret=True
    )
    cache_aws_profile: str = text_row(
        "", "Profile in ~/.aws to take credentials from.", "SEMAPHORE_CACHE_AWS_PROFILE"
    )
    cache_use_ec2_instance_profile: bool = flag_row(
        False,
        "Take credentials from the instance's role only.",
        "SEMAPHORE_CACHE_USE_EC2_INSTANCE_PROFILE",
    )
    cache_archive_method: str = text_row(
        "zstd",
        "How archives are packed; all but `zstd` make gzip, which the original reads.",
        "SEMAPHORE_CACHE_ARCHIVE_METHOD",
        choices=("zstd", "gzip", "shell-out", "native", "native-parallel"),
    )
    cache_fail_on_error: bool = flag_row(
        True,
        "A store or restore that fails by a fault of the cache fails its step.",
        "CACHE_FAIL_ON_ERROR",
    )
    cache_metrics_enabled: bool = flag_row(
        False,
        "Write the original's metrics to /tmp/toolbox_metrics in steps.",
        "SEMAPHORE_TOOLBOX_METRICS_ENABLED",
    )

    http_bind: str = text_row(
        "",
        "Serve a status page and /healthz on this address.",
        "DRONE_HTTP_BIND",
        Synonym("DRONE_SERVER_PORT", _as_bind),
        shown="off; `:3000` with `ui-password`",
    )
    ui_username: str = text_row("", "User of the status page.", "DRONE_UI_USERNAME")
    ui_password: str = text_row(
        "", "Password of the status page.", "DRONE_UI_PASSWORD", secret=True
    )
    ui_realm: str = text_row("MyRealm", "Realm of the status page.", "DRONE_UI_REALM")
    debug: bool = flag_row(False, "Log more: the same as `log-level` debug.", "DRONE_DEBUG")
    trace: bool = flag_row(
        False, "Log most: `log-level` trace, and `rpc-dump-http`.", "DRONE_TRACE"
    )
    log_level: str = text_row(
        "info",
        "How much is logged.",
        semaphore=True,
        choices=("trace", "debug", "info", "warning", "error"),
    )
    log_file: str = path_row(
        "",
        "Log to this file instead of standard error.",
        Synonym("SEMAPHORE_AGENT_LOG_FILE_PATH"),
    )
    rpc_dump_http: bool = flag_row(
        False, "Log every call to the server and how it was answered.", "DRONE_RPC_DUMP_HTTP"
    )
    rpc_dump_http_body: bool = flag_row(
        False,
        "Log what is said in these calls as well. There are secrets in it.",
        "DRONE_RPC_DUMP_HTTP_BODY",
    )

    state_dir: Path = path_row(  # noqa: RUF009 - it makes a field
        _STATE_DIR,
        "Where identity and unsent logs are kept.",
        shown="`~/.ciserver-agent`",
    )
    work_dir: Path = path_row(  # noqa: RUF009 - it makes a field
        _UNSET, "Where workspaces and git mirrors are.", shown="`work` in `state-dir`"
    )
    disk_free_min: int = size_row(
        512 * MIB, "Take no work while less is free in `work-dir` or `state-dir`; 0: do not look."
    )
    clean_interval: float = duration_row(
        3600.0, "How often what is kept for later is cleaned up; 0: never."
    )
    clean_age: float = duration_row(
        0.0, "Remove images unused for this long; 0: never for their age."
    )
    clean_size: int = size_row(
        0, "Remove the longest unused images beyond this total; 0: no limit."
    )
    clean_ignore: tuple[str, ...] = list_row((), "Patterns of images that are never removed.")
    mirror_age: float = duration_row(
        30 * 86400.0, "Remove git mirrors unused for this long; 0: never for their age."
    )
    mirror_size: int = size_row(
        20 * GIB, "Remove the longest unused git mirrors beyond this total; 0: no limit."
    )

    clone_image: str = text_row(
        "", "No effect: the agent clones by itself.", "DRONE_RUNNER_CLONE_IMAGE"
    )
    defer_tail_log: bool = flag_row(
        False, "No effect: logs are live and kept on disk.", "DRONE_DEFER_TAIL_LOG"
    )
    tmate_enabled: bool = flag_row(
        False, "No effect: builds in debug open a shell in the browser.", "DRONE_TMATE_ENABLED"
    )
    tmate_image: str = text_row("", "No effect, see `tmate-enabled`.", "DRONE_TMATE_IMAGE")
    tmate_host: str = text_row("", "No effect, see `tmate-enabled`.", "DRONE_TMATE_HOST")
    tmate_port: str = text_row("", "No effect, see `tmate-enabled`.", "DRONE_TMATE_PORT")
    tmate_fingerprint_rsa: str = text_row(
        "", "No effect, see `tmate-enabled`.", "DRONE_TMATE_FINGERPRINT_RSA"
    )
    tmate_fingerprint_ed25519: str = text_row(
        "", "No effect, see `tmate-enabled`.", "DRONE_TMATE_FINGERPRINT_ED25519"
    )
    tmate_authorized_keys: str = text_row(
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
            theirs = Synonym(
                SEMAPHORE_PREFIX + item.name.upper(), spaces=row.kind in ("list", "map")
            )
            row = dataclasses.replace(row, synonyms=(*row.synonyms, theirs))
        default = {} if item.default is dataclasses.MISSING else item.default
        key = item.name.replace("_", "-")
        found[key] = Entry(item.name, key, row, default)
    return found
