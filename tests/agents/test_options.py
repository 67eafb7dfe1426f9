from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest

from agents import option_text
from agents.option_table import Options, entries
from agents.options import OptionError, child_environ, load, resolve, to_environ

TWO = {"CISERVER_AGENT_SERVER": "http://ci.example.com", "CISERVER_AGENT_TOKEN": "cij_secret"}
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "agent-options.md"
#: A file that holds an object in JSON.
PACKAGE = str(ROOT / "package.json")

#: Every name of the two originals (reference: agents, sections 1, 3.1 and 5) with a value and the
#: field it ends in.
THEIRS = [
    ("DRONE_SERVER", "wss://ci.example.com/ws/broker", "server", "https://ci.example.com"),
    ("DRONE_RPC_SERVER", "https://ci.example.com", "server", "https://ci.example.com"),
    ("DRONE_RPC_HOST", "ci.example.com:8080", "server", "http://ci.example.com:8080"),
    ("SEMAPHORE_AGENT_ENDPOINT", "ci.example.com", "server", "https://ci.example.com"),
    ("DRONE_TOKEN", "abc", "token", "abc"),
    ("DRONE_AGENT_TOKEN", "abc", "token", "abc"),
    ("DRONE_RPC_SECRET", "abc", "token", "abc"),
    ("SEMAPHORE_AGENT_TOKEN", "abc", "token", "abc"),
    ("SEMAPHORE_AGENT_NO_HTTPS", "true", "no_https", True),
    ("DRONE_RPC_SKIP_VERIFY", "true", "skip_verify", True),
    ("DRONE_RUNNER_NAME", "ci-1", "name", "ci-1"),
    ("SEMAPHORE_AGENT_NAME", "builder-one", "name", "builder-one"),
    ("DRONE_RUNNER_CAPACITY", "5", "concurrency", 5),
    ("DRONE_AGENT_CONCURRENCY", "5", "concurrency", 5),
    ("DOCKER_MAX_PROCS", "5", "concurrency", 5),
    ("DRONE_RUNNER_MAX_PROCS", "7", "max_procs", 7),
    ("DRONE_PLATFORM_OS", "windows", "os", "windows"),
    ("DOCKER_OS", "windows", "os", "windows"),
    ("DRONE_PLATFORM_ARCH", "arm64", "arch", "arm64"),
    ("DOCKER_ARCH", "arm64", "arch", "arm64"),
    ("DOKCER_ARCH", "arm64", "arch", "arm64"),
    ("DRONE_PLATFORM_VARIANT", "v7", "variant", "v7"),
    ("DRONE_PLATFORM_KERNEL", "1809", "kernel", "1809"),
    ("DRONE_RUNNER_LABELS", "disk:ssd,zone:a", "labels", {"disk": "ssd", "zone": "a"}),
    ("DRONE_BACKOFF", "30s", "backoff", 30.0),
    ("SEMAPHORE_AGENT_DISCONNECT_AFTER_JOB", "true", "disconnect_after_job", True),
    ("SEMAPHORE_AGENT_DISCONNECT_AFTER_IDLE_TIMEOUT", "300", "disconnect_after_idle_timeout", 300),
    ("SEMAPHORE_AGENT_INTERRUPTION_GRACE_PERIOD", "60", "interruption_grace_period", 60),
    ("SEMAPHORE_AGENT_PRE_JOB_HOOK_PATH", "/hook", "pre_job_hook_path", "/hook"),
    ("SEMAPHORE_AGENT_POST_JOB_HOOK_PATH", "/hook", "post_job_hook_path", "/hook"),
    ("SEMAPHORE_AGENT_SHUTDOWN_HOOK_PATH", "/hook", "shutdown_hook_path", "/hook"),
    ("SEMAPHORE_AGENT_FAIL_ON_PRE_JOB_HOOK_ERROR", "true", "fail_on_pre_job_hook_error", True),
    ("SEMAPHORE_AGENT_SOURCE_PRE_JOB_HOOK", "true", "source_pre_job_hook", True),
    ("SEMAPHORE_AGENT_ENV_VARS", "A=1=2 B=3", "env_vars", {"A": "1=2", "B": "3"}),
    ("SEMAPHORE_AGENT_ENV_VARS", "A=two words", "env_vars", {"A": "two words"}),
    ("SEMAPHORE_AGENT_ENV_VARS", "A=1=2,B=3", "env_vars", {"A": "1=2", "B": "3"}),
    ("DRONE_RUNNER_ENVIRON", "A:1=2,B:3", "env_vars", {"A": "1=2", "B": "3"}),
    ("DRONE_RUNNER_ENV_FILE", __file__, "env_file", __file__),
    ("DRONE_RUNNER_ENVFILE", __file__, "env_file", __file__),
    ("DRONE_RUNNER_SECRETS", "key:s3cr:et", "secrets", {"key": "s3cr:et"}),
    ("SEMAPHORE_AGENT_FILES", "/a:/b /c:/d", "files", ("/a:/b", "/c:/d")),
    ("SEMAPHORE_AGENT_FAIL_ON_MISSING_FILES", "true", "fail_on_missing_files", True),
    ("SEMAPHORE_AGENT_UPLOAD_JOB_LOGS", "when-trimmed", "upload_job_logs", "when-trimmed"),
    ("SEMAPHORE_AGENT_LOGS_COMPRESSION_SIZE", "1048576", "logs_compression_size", 1048576),
    ("DOCKER_HOST", "tcp://10.0.0.1:2376", "docker_host", "tcp://10.0.0.1:2376"),
    ("DOCKER_TLS_VERIFY", "1", "docker_tls_verify", True),
    ("DOCKER_CERT_PATH", "/tmp", "docker_cert_path", "/tmp"),
    ("DRONE_DOCKER_CONFIG", PACKAGE, "docker_config", PACKAGE),
    ("DRONE_DOCKER_STREAM_PULL", "false", "docker_stream_pull", False),
    ("DRONE_RUNNER_VOLUMES", "/a:/b:ro", "volumes", ("/a:/b:ro",)),
    ("DRONE_RUNNER_DEVICES", "/dev/kvm", "devices", ("/dev/kvm",)),
    ("DRONE_RUNNER_NETWORKS", "front,back", "networks", ("front", "back")),
    ("DRONE_RUNNER_NETWORK_OPTS", "mtu:1400", "network_opts", {"mtu": "1400"}),
    ("DRONE_PLUGIN_PULL", "true", "plugin_pull", True),
    ("DRONE_PLUGIN_NAMESPACE", "plugins", "plugin_namespace", "plugins"),
    ("DRONE_PLUGIN_WHITELIST", "plugins/*", "plugin_whitelist", ("plugins/*",)),
    ("DRONE_PLUGIN_PRIVILEGED", "plugins/docker", "plugin_privileged", ("plugins/docker",)),
    ("DRONE_PLUGIN_NETRC", "git,hg", "plugin_netrc", ("git", "hg")),
    ("DRONE_NETRC_CLONE_ONLY", "true", "netrc_clone_only", True),
    ("DRONE_LIMIT_REPOS", "octocat/*", "limit_repos", ("octocat/*",)),
    ("DRONE_LIMIT_EVENTS", "push,tag", "limit_events", ("push", "tag")),
    ("DRONE_LIMIT_TRUSTED", "true", "limit_trusted", True),
    ("DRONE_SECRET_PLUGIN_ENDPOINT", "http://x", "secret_plugin_endpoint", "http://x"),
    ("DRONE_ENV_PLUGIN_TOKEN", "t", "env_plugin_token", "t"),
    ("DRONE_REGISTRY_PLUGIN_SKIP_VERIFY", "true", "registry_plugin_skip_verify", True),
    ("DRONE_MEMORY_LIMIT", "512MiB", "memory", 512 * 1024 * 1024),
    ("DRONE_MEMORY_SWAP_LIMIT", "1g", "memory_swap", 1024**3),
    ("DRONE_SHM_SIZE", "64m", "shm_size", 64 * 1024 * 1024),
    ("DRONE_CPU_QUOTA", "50000", "cpu_quota", 50000),
    ("DRONE_CPU_PERIOD", "100000", "cpu_period", 100000),
    ("DRONE_CPU_SHARES", "512", "cpu_shares", 512),
    ("DRONE_CPU_SET", "0-1,3", "cpu_set", "0-1,3"),
    ("DRONE_HTTP_BIND", ":3000", "http_bind", ":3000"),
    ("DRONE_SERVER_PORT", ":3001", "http_bind", ":3001"),
    ("DRONE_UI_USERNAME", "root", "ui_username", "root"),
    ("DRONE_UI_REALM", "Here", "ui_realm", "Here"),
    ("DRONE_DEBUG", "true", "log_level", "debug"),
    ("DRONE_TRACE", "true", "log_level", "trace"),
    ("SEMAPHORE_AGENT_LOG_LEVEL", "ERROR", "log_level", "error"),
    ("SEMAPHORE_AGENT_LOG_FILE_PATH", "/tmp/agent_log", "log_file", "/tmp/agent_log"),
    ("DRONE_RPC_DUMP_HTTP", "true", "rpc_dump_http", True),
    ("DRONE_RPC_DUMP_HTTP_BODY", "true", "rpc_dump_http_body", True),
    ("DRONE_RUNNER_CLONE_IMAGE", "drone/git", "clone_image", "drone/git"),
    ("DRONE_DEFER_TAIL_LOG", "true", "defer_tail_log", True),
    ("DRONE_TMATE_ENABLED", "true", "tmate_enabled", True),
    ("HTTP_PROXY", "http://proxy:3128", "http_proxy", "http://proxy:3128"),
    ("https_proxy", "http://proxy:3128", "https_proxy", "http://proxy:3128"),
    ("NO_PROXY", "localhost,.corp", "no_proxy", "localhost,.corp"),
]


@pytest.mark.parametrize(("name", "text", "field", "value"), THEIRS)
def test_it_reads_the_variables_of_the_originals(
    name: str, text: str, field: str, value: object
) -> None:
    needed = {"server": "CISERVER_AGENT_SERVER", "token": "CISERVER_AGENT_TOKEN"}
    environ = {key: text for key, text in TWO.items() if needed.get(field) != key}

    options = load([], {**environ, name: text})

    assert getattr(options, field) == value


def test_two_settings_are_enough() -> None:
    options = load(["--server", "localhost:8000", "--token=abc", "--no-https"], {})

    assert (options.server, options.token) == ("http://localhost:8000", "abc")
    assert (options.concurrency, options.isolation) == (2, "auto")
    assert options.work_dir == options.state_dir / "work"


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "agent.yml"
    file.write_text("concurrency: 3\nmax-procs: 3\nbackoff: 3s\n")
    environ = {**TWO, "CISERVER_AGENT_CONCURRENCY": "4", "CISERVER_AGENT_MAX_PROCS": "4"}

    options = load(["--config", str(file), "--concurrency", "5"], environ)

    found = (options.concurrency, options.max_procs, options.backoff, options.cpu_shares)
    assert found == (5, 4, 3.0, 0)
    assert options.sources["concurrency"] == "flag"
    assert options.sources["max_procs"] == "environment CISERVER_AGENT_MAX_PROCS"
    assert options.sources["backoff"] == f"file {file}"


@pytest.mark.parametrize("flag", ["--config", "--config-file"])
def test_the_file_may_hold_everything(tmp_path: Path, flag: str) -> None:
    file = tmp_path / "agent.yml"
    file.write_text(
        "endpoint: ci.example.com\n"
        "token: abc\n"
        "disconnect-after-job: true\n"
        "disconnect-after-idle-timeout: 300\n"
        "labels: {disk: ssd}\n"
        "files: [/a:/b, '/c:/d']\n"
        "env-vars:\n- A=b,c\n- D=e=f\n"
        "name:\n"
    )

    options = load([flag, str(file)], {})

    assert options.server == "https://ci.example.com"
    assert options.disconnect_after_job
    assert options.disconnect_after_idle_timeout == 300
    assert options.labels == {"disk": "ssd"}
    assert options.files == ("/a:/b", "/c:/d")
    assert options.env_vars == {"A": "b,c", "D": "e=f"}


def test_the_own_variable_wins_over_a_synonym() -> None:
    environ = {**TWO, "DOCKER_HOST": "tcp://a:1", "CISERVER_AGENT_DOCKER_HOST": "tcp://b:2"}

    assert load([], environ).docker_host == "tcp://b:2"


def test_a_server_without_a_scheme_is_secure_unless_denied() -> None:
    assert load(["--server", "ci"], TWO).server == "https://ci"
    assert load(["--server", "ci", "--no-https"], TWO).server == "http://ci"


def test_a_list_flag_may_be_repeated_and_an_item_may_be_quoted() -> None:
    argv = ["--files", "/a:/b", "--files", '"/c,1:/d",/e:/f']

    assert load(argv, TWO).files == ("/a:/b", "/c,1:/d", "/e:/f")


def test_a_flag_can_be_denied() -> None:
    assert not load(["--no-docker-stream-pull"], TWO).docker_stream_pull
    assert load(["--debug"], TWO).log_level == "debug"
    assert load(["--debug=false"], TWO).log_level == "info"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("90s", 90), ("1h30m", 5400), ("250ms", 0.25)]
)
def test_it_reads_durations(text: str, seconds: float) -> None:
    assert load(["--sync-timeout", text], TWO).sync_timeout == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("100", 100), ("1k", 1024), ("1.5KiB", 1536), ("2MB", 2 * 1024**2), ("1g", 1024**3)],
)
def test_it_reads_sizes(text: str, size: int) -> None:
    assert load(["--memory", text], TWO).memory == size


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    environ = {"CISERVER_AGENT_SERVER": "x", "CISERVER_AGENT_TOKEN_FILE": str(tmp_path / "token")}

    assert load([], environ).token == "abc"


def test_secrets_are_not_shown() -> None:
    options = load(["--secrets", "key=hunter2"], {**TWO, "CISERVER_AGENT_UI_PASSWORD": "hunter3"})

    assert "hunter" not in repr(options)
    assert TWO["CISERVER_AGENT_TOKEN"] not in repr(options)


def test_the_name_may_come_from_a_variable() -> None:
    options = load(["--name-from-env", "INSTANCE"], {**TWO, "INSTANCE": "i-0123456789"})

    assert options.name == "i-0123456789"


def test_a_one_shot_agent_takes_one_stage_at_a_time() -> None:
    assert load(["--disconnect-after-job"], TWO).concurrency == 1


def test_tracing_shows_calls() -> None:
    assert load(["--trace"], TWO).rpc_dump_http


def test_an_agent_may_be_for_one_stage() -> None:
    assert load(["--job-id", "7", "--disconnect-after-job"], TWO).job_id == 7


def test_a_password_turns_the_status_page_on() -> None:
    assert load([], {**TWO, "DRONE_UI_PASSWORD": "x"}).http_bind == ":3000"


WRONG: list[tuple[list[str], dict[str, str], str]] = [
    ([], {}, "server (not set): give --server, CISERVER_AGENT_SERVER or the file key server"),
    (["--token", "x"], {}, "server (not set)"),
    (["--server", "x"], {}, "token (not set)"),
    (["--concurency", "2"], TWO, "--concurency (flag): there is no such option; did you mean"),
    (["concurrency"], TWO, "concurrency (flag): expected an option that starts with --"),
    (["--concurrency"], TWO, "--concurrency (flag): a value is missing"),
    (["--concurrency", "two"], TWO, "concurrency (flag): expected a whole number from 1 to 1000"),
    (["--concurrency", "0"], TWO, "concurrency (flag): expected a whole number from 1 to 1000"),
    (["--concurrency=1", "--concurrency=2"], TWO, "given twice with different values"),
    (["--debug=maybe"], TWO, "debug (flag): expected true or false, got 'maybe'"),
    (["--memory", "lots"], TWO, "memory (flag): expected a size such as 512MiB, got 'lots'"),
    (["--backoff", "soon"], TWO, "backoff (flag): expected a duration"),
    (["--backoff", "10m"], TWO, "backoff-max (flag): is less than backoff"),
    (["--labels", "ssd"], TWO, "labels (flag): expected NAME=VALUE, got 'ssd'"),
    (["--secrets", "hunter2"], TWO, "secrets (flag): expected NAME=VALUE, got an entry without"),
    (["--upload-job-logs", "x"], TWO, "expected one of never, when-trimmed, always, got 'x'"),
    (["--name", "short"], TWO, "name (flag): expected 8 to 80 characters"),
    (["--name", "with space"], TWO, "name (flag): expected 8 to 80 characters"),
    (["--name-from-env", "NOPE"], TWO, "name-from-env (flag): NOPE is not set"),
    (["--name-from-env", "A", "--name", "builder-1"], TWO, "contradicts name (flag)"),
    (["--job-id", "7"], TWO, "job-id (flag): needs disconnect-after-job"),
    (["--disconnect-after-job", "--concurrency", "2"], TWO, "contradicts disconnect-after-job"),
    (["--server", "https://x", "--no-https"], TWO, "no-https (flag): contradicts server"),
    (["--server", "ftp://x"], TWO, "server (flag): expected an http or https address"),
    (["--client-cert", __file__], TWO, "client-cert (flag): needs client-key"),
    (["--ca-file", "/no/such/file"], TWO, "ca-file (flag): /no/such/file does not exist"),
    (["--memory", "2g", "--memory-swap", "1g"], TWO, "memory-swap (flag): is less than memory"),
    (["--files", "/a"], TWO, "files (flag): expected HOST:CONTAINER, got '/a'"),
    (["--http-bind", "3000x"], TWO, "http-bind (flag): expected HOST:PORT"),
    (["--isolation", "kubernetes"], TWO, "isolation (flag): this agent does not run stages in Kub"),
    (["--kubernetes-executor"], TWO, "--kubernetes-executor (flag): this agent does not run"),
    ([], {**TWO, "SEMAPHORE_AGENT_KUBERNETES_EXECUTOR": "1"}, "this agent does not run stages"),
    ([], {**TWO, "CISERVER_AGENT_CONCURENCY": "1"}, "CISERVER_AGENT_CONCURENCY (environment)"),
    ([], {**TWO, "CISERVER_AGENT_DEBUG": "x"}, "debug (environment CISERVER_AGENT_DEBUG)"),
    ([], {**TWO, "DOCKER_OS": "a", "DRONE_PLATFORM_OS": "b"}, "contradicts DRONE_PLATFORM_OS"),
    ([], {**TWO, "CISERVER_AGENT_TOKEN": "", "CISERVER_AGENT_TOKEN_FILE": "/no"}, "cannot read"),
    (["--server", "http://bad host"], TWO, "server (flag): expected an address (http://…)"),
    (["--server", "x:99999"], TWO, "server (flag): expected an address (http://…)"),
    (["--os", ""], TWO, "os (flag): expected a word such as linux or amd64, got ''"),
    (["--env-file", "/"], TWO, "env-file (flag): cannot read /: Is a directory"),
    (["--state-dir", f"{__file__}/x"], TWO, f"state-dir (flag): cannot write in {__file__}"),
    (["--work-dir", __file__], TWO, f"work-dir (flag): cannot write in {__file__}"),
    (
        ["--docker-tls-verify", "--docker-cert-path", "/"],
        TWO,
        "docker-cert-path (flag): there is no ca.pem, cert.pem, key.pem in /",
    ),
    (["--http-proxy", "socks5://x:1"], TWO, "http-proxy (flag): expected an address (http://…)"),
    ([], {**TWO, "HTTPS_PROXY": "http://x:port"}, "https-proxy (environment HTTPS_PROXY): expec"),
    (["--redis-url", "http://x"], TWO, "redis-url (flag): expected an address (redis://…)"),
    (["--docker-host", "ssh://x"], TWO, "docker-host (flag): expected an address (unix://…)"),
    (["--env-plugin-endpoint", "/x"], TWO, "env-plugin-endpoint (flag): expected an address"),
    (["--http-bind", ":70000"], TWO, "http-bind (flag): expected HOST:PORT, got ':70000'"),
    (["--cpu-set", "all"], TWO, "cpu-set (flag): expected 0-1,3, got 'all'"),
    (["--devices", "kvm"], TWO, "devices (flag): expected HOST[:CONTAINER], got 'kvm'"),
    (["--ca-file", __file__], TWO, "ca-file (flag): "),
    (
        ["--client-cert", __file__, "--client-key", __file__],
        TWO,
        "client-cert (flag): cannot be used with client-key",
    ),
    (["--exec-user", "nobody-at-all"], TWO, "exec-user (flag): there is no user"),
    (["--docker-config", __file__], TWO, "docker-config (flag): "),
    (["--log-file", "/no/such/agent.log"], TWO, "log-file (flag): cannot write in /no/such"),
    (["--config", "/no/such.yml"], TWO, "config (flag): /no/such.yml does not exist"),
]


@pytest.mark.parametrize(("argv", "environ", "message"), WRONG)
def test_a_wrong_option_is_one_line_with_its_source(
    argv: list[str], environ: dict[str, str], message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        load(argv, environ)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("concurency: 1", "concurency (file PATH): there is no such option; did you mean"),
        ("kubernetes-executor: true", "kubernetes-executor (file PATH): this agent does not run"),
        ("concurrency: [1]", "concurrency (file PATH): expected a whole number from 1 to 1000"),
        ("config: x", "config (file PATH): there is no such option"),
        ("endpoint: a\nserver: b", "server (file PATH): server is given twice"),
        ("- a", "config (file PATH): expected a mapping"),
        ("a: [", "config (file PATH): is not YAML"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_source(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "agent.yml"
    file.write_text(text)

    with pytest.raises(OptionError) as caught:
        load(["--config", str(file)], TWO)

    assert message.replace("PATH", str(file)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_child_process_can_be_told_the_same_options(tmp_path: Path) -> None:
    argv = ["--labels", "a=b,c=d", "--files", '"/x,y:/z"', "--debug", "--memory", "1g"]
    options = load([*argv, "--state-dir", str(tmp_path)], TWO)

    told = to_environ(options)
    assert resolve({}, {**TWO, **told}) == options
    assert not set(told) & set(TWO)


@pytest.mark.parametrize(
    "argv",
    [
        ["--plugin-privileged", "", "--http-proxy", ""],
        ["--config", "FILE"],
        ["--config", "FILE", "--no-debug", "--limit-repos", "", "--name", "other-agent"],
    ],
)
def test_a_child_process_is_not_told_otherwise(argv: list[str], tmp_path: Path) -> None:
    file = tmp_path / "agent.yml"
    file.write_text("plugin-privileged: []\ndebug: true\nlimit-repos: [a/*]\nlabels: {}\n")
    environ = {
        **TWO,
        "CISERVER_AGENT_NAME": "agent-one",
        "SEMAPHORE_AGENT_CONFIG_FILE": str(file),
        "DRONE_RUNNER_NAME": "another",
        "HTTP_PROXY": "http://proxy:1",
        "DRONE_PLUGIN_PRIVILEGED": "evil/*",
        "PATH": "/bin",
    }
    options = load([word.replace("FILE", str(file)) for word in argv], environ)

    child = child_environ(options, environ)
    assert replace(resolve({}, child), config=options.config) == options
    assert child["PATH"] == "/bin"


def test_the_table_is_whole() -> None:
    table = entries()

    assert len(table) == len(dataclasses.fields(Options)) - 1
    assert all(entry.row.help.endswith((".", "+")) for entry in table.values())
    names = [name for entry in table.values() for name in (*entry.keys, entry.variable)]
    names += [synonym.name for entry in table.values() for synonym in entry.row.synonyms]
    assert len(names) == len(set(names))


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == option_text.page(), "run: ci-agent options > docs/agent-options.md"


def test_the_help_names_every_flag() -> None:
    text = option_text.help_text()

    assert all(f"  --{key}" in text for key in entries())
