"""The checklist of the agents that ours replaces: every name is understood, in every way it can be
given, and for every option there is a test of what it does.

Sources: Drone 0.5's agent, Drone's Docker runner, Semaphore's self-hosted agent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from agents.flags import CELERYS_OWN, add_flags, take
from agents.option_table import Entry, entries
from agents.options import load

TESTS = Path(__file__).parents[1]
TWO = {"CISERVER_AGENT_SERVER": "http://ci.example.com", "CISERVER_AGENT_TOKEN": "cij_secret"}

#: Drone 0.5's agent (checklist 000).
DRONE_AGENT = """
DRONE_SERVER DRONE_TOKEN DRONE_DEBUG DRONE_BACKOFF DRONE_PLUGIN_PULL DRONE_PLUGIN_NAMESPACE
DRONE_PLUGIN_WHITELIST DRONE_PLUGIN_PRIVILEGED DRONE_PLUGIN_NETRC DOCKER_HOST DOCKER_TLS_VERIFY
DOCKER_CERT_PATH DOCKER_MAX_PROCS DOCKER_OS DOCKER_ARCH DOKCER_ARCH HTTP_PROXY HTTPS_PROXY NO_PROXY
"""
#: Drone's Docker runner.
DRONE_RUNNER = """
DRONE_RPC_HOST DRONE_RPC_SECRET DRONE_RPC_SKIP_VERIFY DRONE_RPC_DUMP_HTTP DRONE_RPC_DUMP_HTTP_BODY
DRONE_RUNNER_NAME DRONE_RUNNER_CAPACITY DRONE_RUNNER_MAX_PROCS DRONE_RUNNER_ENVIRON
DRONE_RUNNER_ENV_FILE DRONE_RUNNER_SECRETS DRONE_RUNNER_LABELS DRONE_RUNNER_VOLUMES
DRONE_RUNNER_NETWORKS DRONE_RUNNER_NETWORK_OPTS DRONE_RUNNER_PRIVILEGED_IMAGES
DRONE_RUNNER_CLONE_IMAGE DRONE_RUNNER_DEVICES DRONE_PLATFORM_OS DRONE_PLATFORM_ARCH
DRONE_PLATFORM_KERNEL DRONE_PLATFORM_VARIANT DRONE_LIMIT_REPOS DRONE_LIMIT_EVENTS
DRONE_LIMIT_TRUSTED DRONE_MEMORY_LIMIT DRONE_MEMORY_SWAP_LIMIT DRONE_SHM_SIZE DRONE_CPU_QUOTA
DRONE_CPU_PERIOD DRONE_CPU_SHARES DRONE_CPU_SET DRONE_ENV_PLUGIN_ENDPOINT DRONE_ENV_PLUGIN_TOKEN
DRONE_ENV_PLUGIN_SKIP_VERIFY DRONE_SECRET_PLUGIN_ENDPOINT DRONE_SECRET_PLUGIN_TOKEN
DRONE_SECRET_PLUGIN_SKIP_VERIFY DRONE_REGISTRY_PLUGIN_ENDPOINT DRONE_REGISTRY_PLUGIN_TOKEN
DRONE_REGISTRY_PLUGIN_SKIP_VERIFY DRONE_DOCKER_CONFIG DRONE_DOCKER_STREAM_PULL
DRONE_NETRC_CLONE_ONLY DRONE_DEFER_TAIL_LOG DRONE_TRACE DRONE_HTTP_BIND DRONE_UI_USERNAME
DRONE_UI_PASSWORD DRONE_UI_REALM DRONE_SERVER_PORT DRONE_TMATE_ENABLED DRONE_TMATE_IMAGE
DRONE_TMATE_HOST DRONE_TMATE_PORT DRONE_TMATE_FINGERPRINT_RSA DRONE_TMATE_FINGERPRINT_ED25519
DRONE_TMATE_AUTHORIZED_KEYS
"""
#: Keys of Semaphore's agent (checklist 002): flags and file keys here, too.
SEMAPHORE = """
endpoint token no-https name name-from-env env-vars files fail-on-missing-files pre-job-hook-path
fail-on-pre-job-hook-error source-pre-job-hook post-job-hook-path shutdown-hook-path
disconnect-after-job job-id disconnect-after-idle-timeout interruption-grace-period upload-job-logs
"""
SEMAPHORE_VARIABLES = """
SEMAPHORE_AGENT_LOG_LEVEL SEMAPHORE_AGENT_LOG_FILE_PATH SEMAPHORE_AGENT_LOGS_COMPRESSION_SIZE
SEMAPHORE_AGENT_CACHE_BUCKET_NAME SEMAPHORE_CACHE_BACKEND SEMAPHORE_CACHE_S3_BUCKET
SEMAPHORE_CACHE_S3_URL SEMAPHORE_CACHE_S3_KEY SEMAPHORE_CACHE_S3_SECRET
"""
KUBERNETES = "executor pod-spec allowed-images default-image labels pod-start-timeout"

CONTAINERS = "agents/drivers/test_docker_container.py"
#: What proves the effect of options: a test file below tests/ and a test in it.
EFFECTS: Mapping[str, str] = {
    "agents/test_options.py::test_the_file_may_hold_everything": "config",
    "agents/test_options.py::test_the_name_may_come_from_a_variable": "name-from-env",
    "agents/test_options.py::test_a_server_without_a_scheme_is_secure_unless_denied": "no-https",
    "agents/test_link.py::test_it_repeats_until_there_is_an_answer": "server",
    "agents/test_worker.py::test_it_runs_a_stage_for_a_ticket_and_drains_on_sigterm": "token",
    "agents/test_agent.py::test_tickets_may_come_from_elsewhere": "redis-url",
    "agents/test_link.py::test_skip_verify_trusts_anybody_and_warns": "skip-verify",
    "agents/test_link.py::test_an_own_authority_is_trusted": "ca-file",
    "agents/test_link.py::test_a_client_certificate_is_presented": "client-cert client-key",
    "agents/test_link.py::test_it_goes_through_the_proxy": "http-proxy",
    "agents/test_link.py::test_it_goes_to_a_secure_server_through_a_tunnel": "https-proxy",
    "agents/test_link.py::test_it_goes_past_the_proxy": "no-proxy",
    "agents/test_agent.py::test_an_agent_keeps_its_name_and_tells_who_it_was": "name state-dir",
    "e2e/test_agent_options.py::test_an_agent_may_be_for_one_stage": "job-id",
    "agents/test_lifecycle.py::test_all_of_its_life_by_a_file_of_options": (
        "concurrency labels notify-socket spot-notices spot-endpoint http-bind log-file debug"
    ),
    "agents/test_agent.py::test_max_procs_bounds_steps_of_all_stages": "max-procs",
    "agents/test_agent.py::test_it_says_what_it_is": "os arch variant kernel",
    "agents/test_link.py::test_waits_double_up_to_the_first_cap_then_to_the_last": (
        "backoff backoff-max"
    ),
    "agents/test_agent.py::test_an_agent_that_cannot_sync_leaves_with_an_exit_code": "sync-timeout",
    "agents/test_lifecycle.py::test_a_one_shot_agent_ends_after_its_stage": (
        "disconnect-after-job shutdown-hook-path"
    ),
    "agents/test_lifecycle.py::test_an_idle_agent_ends": "disconnect-after-idle-timeout",
    "agents/test_lifecycle.py::test_after_its_grace_it_cancels_what_runs": (
        "interruption-grace-period"
    ),
    "e2e/test_agent_options.py::test_steps_are_given_variables_secrets_and_proxies": (
        "env-vars env-file secrets pre-job-hook-path source-pre-job-hook post-job-hook-path"
    ),
    "agents/test_agent.py::test_a_failing_pre_job_hook_can_fail_the_stage": (
        "fail-on-pre-job-hook-error"
    ),
    "agents/drivers/test_docker_options.py::test_files_are_mounted_and_missing_ones_left_out": (
        "files"
    ),
    "agents/test_hooks.py::test_missing_files_are_said_or_fail_the_stage": "fail-on-missing-files",
    "agents/test_joblog.py::test_it_uploads_what_was_trimmed": "upload-job-logs",
    "agents/test_joblog.py::test_it_compresses_what_is_large": "logs-compression-size",
    "agents/test_spool.py::test_beyond_the_cap_the_middle_is_left_out_and_said": "max-log-size",
    "agents/test_policy.py::test_it_refuses_a_stage_and_names_rule_and_agent": (
        "isolation exec-untrusted limit-repos limit-events limit-trusted plugin-whitelist "
        "allow-privileged allow-host-volumes"
    ),
    "agents/test_drivers.py::test_steps_run_as_another_user": "exec-user",
    "agents/drivers/test_docker_tls.py::test_a_step_runs_over_tls": (
        "docker-host docker-tls-verify docker-cert-path"
    ),
    "agents/drivers/test_docker_options.py::test_a_login_of_the_host_opens_a_registry": (
        "docker-config docker-stream-pull"
    ),
    "agents/drivers/test_docker_options.py::test_volumes_and_devices_of_the_host": (
        "volumes devices"
    ),
    "agents/drivers/test_docker_options.py::test_networks_and_their_settings": (
        "networks network-opts"
    ),
    "agents/test_policy.py::test_it_gives_plugins_their_namespace_and_pulls_them": (
        "plugin-pull plugin-namespace"
    ),
    "agents/test_policy.py::test_it_runs_known_plugins_privileged": "plugin-privileged",
    "agents/test_policy.py::test_it_gives_the_credentials_of_git_to_whom_the_rules_name": (
        "plugin-netrc netrc-clone-only"
    ),
    "agents/test_extensions.py::test_variables_are_below_all_others_and_masked_where_told": (
        "env-plugin-endpoint env-plugin-token"
    ),
    "agents/test_extensions.py::test_secrets_are_asked_for_where_the_file_says_they_are": (
        "secret-plugin-endpoint secret-plugin-token"
    ),
    "agents/test_extensions.py::test_logins_come_after_the_pipelines": (
        "registry-plugin-endpoint registry-plugin-token"
    ),
    "agents/test_extensions.py::test_a_certificate_is_verified_unless_told_otherwise": (
        "env-plugin-skip-verify secret-plugin-skip-verify registry-plugin-skip-verify"
    ),
    f"{CONTAINERS}::test_the_agent_limits_containers_and_steps_override": (
        "memory memory-swap shm-size cpu-quota cpu-period cpu-shares cpu-set"
    ),
    "agents/test_status.py::test_the_page_shows_stages_to_who_knows_the_password": (
        "ui-username ui-password ui-realm"
    ),
    "agents/test_journal.py::test_it_logs_as_much_as_was_asked_for": "trace log-level",
    "agents/test_link.py::test_calls_are_logged_for_who_asks_and_their_token_never": (
        "rpc-dump-http rpc-dump-http-body"
    ),
    "agents/test_agent.py::test_nothing_is_left_on_disk": "work-dir",
    "agents/test_agent.py::test_a_full_disk_takes_no_work": "disk-free-min",
    "agents/drivers/test_docker_cache.py::test_it_cleans_what_nobody_uses_or_wants": (
        "clean-interval clean-age clean-size clean-ignore"
    ),
    "agents/test_mirrors.py::test_age_and_size_say_what_goes": "mirror-age mirror-size",
}
#: Said to have no effect, in the help of each.
IDLE = ("clone-image", "defer-tail-log")


def words(text: str) -> list[str]:
    return text.split()


@pytest.mark.parametrize("name", words(DRONE_AGENT + DRONE_RUNNER + SEMAPHORE_VARIABLES))
def test_names_of_the_originals_are_understood(name: str) -> None:
    known = [synonym.name for entry in entries().values() for synonym in entry.row.synonyms]
    assert known.count(name) == 1


@pytest.mark.parametrize("key", words(SEMAPHORE))
def test_keys_of_semaphores_agent_are_understood(key: str) -> None:
    (entry,) = [entry for entry in entries().values() if key in entry.keys]
    theirs = "SEMAPHORE_AGENT_" + key.upper().replace("-", "_")
    assert theirs in [synonym.name for synonym in entry.row.synonyms]


@pytest.mark.parametrize("key", words(KUBERNETES))
def test_pods_are_refused_with_a_sentence(key: str) -> None:
    name = f"SEMAPHORE_AGENT_KUBERNETES_{key.upper().replace('-', '_')}"
    for argv, environ in (([f"--kubernetes-{key}", "x"], TWO), ([], {**TWO, name: "x"})):
        with pytest.raises(Exception, match="does not run stages in Kubernetes pods"):
            load(argv, environ)


def sample(entry: Entry) -> str:
    """A value of an option that is not its default."""
    texts = {
        "flag": "false" if entry.default is True else "true",
        "number": "3",
        "size": "64MiB",
        "duration": "77s",
        "list": "one,two",
        "map": "A=1,B=2",
        "path": "/",
        "text": "value",
    }
    special = {
        "server": "http://other.example.com",
        "name": "agent-of-the-list",
        "name-from-env": "NAME_OF_AGENT",
        "concurrency": "1",
        "logs-compression-size": "2MiB",
        "env-file": __file__,
        "files": "/a:/b",
        "volumes": "/a:/b",
        "devices": "/dev/null",
        "cpu-set": "0-1",
        "http-bind": ":3001",
        "docker-host": "tcp://10.0.0.1:2375",
        "redis-url": "redis://10.0.0.1/0",
        "memory": "32MiB",
    }
    if entry.row.choices:
        return entry.row.choices[-1]
    is_address = entry.key.endswith(("-endpoint", "-proxy", "-url")) and entry.key != "redis-url"
    return "http://10.0.0.1:81" if is_address else special.get(entry.key, texts[entry.row.kind])


#: Options that are right only together with another, or with a file of a kind.
TOGETHER: Mapping[str, Mapping[str, str]] = {
    "job-id": {"CISERVER_AGENT_DISCONNECT_AFTER_JOB": "true"},
    "name-from-env": {"NAME_OF_AGENT": "agent-of-the-list"},
    "cache-backend": {"CISERVER_AGENT_CACHE_S3_BUCKET": "b"},
    "cache-s3-key": {"CISERVER_AGENT_CACHE_S3_SECRET": "s"},
    "cache-s3-secret": {"CISERVER_AGENT_CACHE_S3_KEY": "k"},
}
OF_A_KIND = ("config", "ca-file", "client-cert", "client-key", "exec-user", "docker-config")
LISTED = [entry for entry in entries().values() if entry.key not in OF_A_KIND]


@pytest.mark.parametrize("entry", LISTED, ids=lambda entry: entry.key)
def test_an_option_may_be_given_in_every_way(entry: Entry, tmp_path: Path) -> None:
    text, file = sample(entry), tmp_path / "agent.yml"
    environ = {**TWO, **TOGETHER.get(entry.key, {})}
    for variable in (entry.variable, *TOGETHER.get(entry.key, ())):
        environ.setdefault(variable, "")
    without = {name: value for name, value in environ.items() if name != entry.variable}
    file.write_text(f"{entry.key}: {text!r}\n".replace("'", '"'))
    given = {
        "variable": load([], {**environ, entry.variable: text}),
        "flag": load([f"--{entry.key}={text}"], without),
        "file": load(["--config", str(file)], without),
        "worker": load([], {**without, **_worker_variables(entry, text)}),
    }
    values = {way: getattr(options, entry.field) for way, options in given.items()}
    assert len({repr(value) for value in values.values()}) == 1, values
    assert values["flag"] != entry.default


def _worker_variables(entry: Entry, text: str) -> dict[str, str]:
    """What `celery -A agents worker --key text` gives, as a variable."""
    if entry.key in CELERYS_OWN:  # Celery's worker has that flag itself
        return {entry.variable: take({entry.field: int(text)})[entry.key]}
    options: list[Any] = []
    add_flags(options.append)
    found: dict[str, Any] = {}
    command = click.Command("worker", params=options, callback=lambda **given: found.update(given))
    is_flag = entry.row.kind == "flag"
    flag = f"--{'no-' if is_flag and text == 'false' else ''}{entry.key}"
    command.main([flag] if is_flag else [flag, text], standalone_mode=False)
    given = take(found)[entry.key]
    return {entry.variable: given if isinstance(given, str) else ",".join(given)}


def test_every_name_of_the_originals_has_a_test_of_its_effect() -> None:
    proven = {key for keys in EFFECTS.values() for key in words(keys)}
    theirs = {key for key, entry in entries().items() if entry.row.synonyms}
    elsewhere = {key for key in theirs if key.startswith(("tmate-", "cache-"))}
    assert theirs - elsewhere - proven == set(IDLE)
    assert proven <= set(entries())


@pytest.mark.parametrize("test", EFFECTS)
def test_that_test_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    assert re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("key", [key for key in entries() if key in IDLE])
def test_what_has_no_effect_says_so(key: str) -> None:
    assert entries()[key].row.help.startswith("No effect")
