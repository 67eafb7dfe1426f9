"""Which store and which part of it a step gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agents.cache.backends.base import CacheError
from agents.cache.backends.registry import open_backend
from agents.cache.settings import (
    Scope,
    Settings,
    exports,
    of_agent,
    of_step,
    project_id,
    scope,
)
from agents.options import OptionError, Options, load
from pipeline.spec import CloneSpec
from tests.agents.conftest import stage

AGENT = Settings("directory", Path("/x"))
OWN = {
    "SEMAPHORE_CACHE_BACKEND": "s3",
    "SEMAPHORE_CACHE_S3_BUCKET": "mine",
    "SEMAPHORE_CACHE_S3_KEY": "id",
    "SEMAPHORE_CACHE_S3_SECRET": "word",
    "SEMAPHORE_PROJECT_ID": "p",
}


def test_a_repository_has_a_part_of_its_own() -> None:
    slugs = ("octo/hello", "octo-hello/x", "octo/hello-x", "octo/héllo", "octo/hello ")
    found = {project_id(replace(stage(), repo=slug)) for slug in slugs}
    assert len(found) == len(slugs)
    assert all(name.replace("-", "").replace(".", "").isalnum() for name in found)


def test_a_build_of_the_repository_reads_and_writes_its_part() -> None:
    assert scope(stage(), "p") == Scope("p", ("p",), "p")


def test_a_fork_reads_the_trusted_part_and_writes_its_own() -> None:
    one = scope(stage(fork=True, clone=CloneSpec(ref="refs/pull/7/head")), "p")
    two = scope(stage(fork=True, clone=CloneSpec(ref="refs/pull/8/head")), "p")
    assert one.own != two.own
    assert one.own.startswith("p.forks/")
    assert one.reads == (one.own, "p")
    assert one.pool == two.pool == "p.forks"


def test_no_variable_moves_a_fork_into_another_part() -> None:
    spec = stage(fork=True, clone=CloneSpec(ref="refs/pull/7/head"))
    told = replace(spec, environment={"DRONE_COMMIT_REF": "refs/pull/8/head"})
    assert scope(told, "p") == scope(spec, "p")


def test_variables_for_keys() -> None:
    spec = stage(
        event="pull_request",
        environment={"DRONE_TARGET_BRANCH": "main", "DRONE_SOURCE_BRANCH": "fix"},
    )
    assert exports(spec, Options()) == {
        "SEMAPHORE_PROJECT_ID": project_id(spec),
        "SEMAPHORE_GIT_BRANCH": "main",
        "SEMAPHORE_GIT_PR_BRANCH": "fix",
    }
    assert "SEMAPHORE_GIT_PR_BRANCH" not in exports(replace(spec, event="push"), Options())


# --- the agent's own ---


def test_the_default_is_a_directory_of_the_agent(tmp_path: Path) -> None:
    found = of_agent(Options(state_dir=tmp_path))
    assert (found.backend, found.folder) == ("directory", tmp_path / "cache")
    assert (found.method, found.size) == ("zstd", 9 * 1024**3)


def test_the_variables_of_the_original_among_env_vars_are_understood() -> None:
    given = {"SEMAPHORE_CACHE_BACKEND": "s3", "SEMAPHORE_CACHE_S3_BUCKET": "b"}
    found = of_agent(Options(env_vars=given))
    assert (found.backend, found.bucket) == ("s3", "b")


def test_options_of_the_cache_and_their_other_names() -> None:
    base = {"CISERVER_AGENT_SERVER": "http://x", "CISERVER_AGENT_TOKEN": "t"}
    theirs = {
        "SEMAPHORE_AGENT_CACHE_BUCKET_NAME": "b",
        "SEMAPHORE_CACHE_S3_URL": "http://s3",
        "CACHE_SIZE": "1024",
        "SEMAPHORE_CACHE_ARCHIVE_METHOD": "native-parallel",
    }
    found = of_agent(load([], {**base, **theirs}))
    assert (found.backend, found.bucket, found.url) == ("s3", "b", "http://s3")
    assert (found.size, found.method) == (1024 * 1024, "gzip")


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"SEMAPHORE_CACHE_BACKEND": "gcs"}, "not supported yet"),
        ({"SEMAPHORE_CACHE_BACKEND": "sftp"}, "not supported yet"),
        ({"SEMAPHORE_CACHE_BACKEND": "s3"}, "needs cache-s3-bucket"),
        ({"SEMAPHORE_CACHE_S3_KEY": "id"}, "needs cache-s3-secret"),
        ({"CISERVER_AGENT_CACHE_BACKEND": "floppy"}, "expected one of"),
    ],
)
def test_wrong_options_of_the_cache(environ: dict[str, str], words: str) -> None:
    base = {"CISERVER_AGENT_SERVER": "http://x", "CISERVER_AGENT_TOKEN": "t"}
    with pytest.raises(OptionError, match=words):
        load([], {**base, **environ})


def test_gcs_among_env_vars_is_refused_when_used() -> None:
    found = of_agent(Options(env_vars={"SEMAPHORE_CACHE_BACKEND": "gcs"}))
    with pytest.raises(CacheError, match="gcs are not supported yet"):
        open_backend(found)


# --- a step's own ---


def test_a_step_without_keys_uses_the_agents_store() -> None:
    assert of_step(AGENT, {"SEMAPHORE_PROJECT_ID": "other"}) is None


def test_a_step_with_its_own_keys_uses_its_own_store() -> None:
    found = of_step(AGENT, {**OWN, "CACHE_SIZE": "10", "AWS_REGION": "r"})
    assert found is not None
    assert (found.backend, found.bucket, found.key, found.secret) == ("s3", "mine", "id", "word")
    assert (found.project, found.size, found.region) == ("p", 10240, "r")


@pytest.mark.parametrize("absent", ["S3_BUCKET", "S3_KEY", "S3_SECRET"])
def test_the_agents_keys_are_not_for_a_store_that_a_step_chose(absent: str) -> None:
    given = {key: value for key, value in OWN.items() if not key.endswith(absent)}
    with pytest.raises(CacheError, match="keys"):
        of_step(AGENT, given)
    own = replace(AGENT, backend="s3", bucket="agents", key="k", secret="s")
    if absent == "S3_KEY":
        with pytest.raises(CacheError, match="keys"):
            of_step(own, given)


def test_the_agents_bucket_named_in_a_step_keeps_its_scopes() -> None:
    agent = replace(AGENT, backend="s3", bucket="mine")
    given = {key: OWN[key] for key in ("SEMAPHORE_CACHE_BACKEND", "SEMAPHORE_CACHE_S3_BUCKET")}
    assert of_step(agent, given) is None
    assert of_step(replace(agent, key="id", secret="word"), OWN) is None


@pytest.mark.parametrize("backend", ["gcs", "sftp", "directory"])
def test_other_stores_of_steps_are_refused(backend: str) -> None:
    agent = replace(AGENT, backend="s3", bucket="b")
    with pytest.raises(CacheError, match="not supported yet"):
        of_step(agent, {"SEMAPHORE_CACHE_BACKEND": backend})


def test_own_keys_need_a_project() -> None:
    given = {key: value for key, value in OWN.items() if key != "SEMAPHORE_PROJECT_ID"}
    with pytest.raises(CacheError, match="SEMAPHORE_PROJECT_ID"):
        of_step(AGENT, given)
