"""The commands over a directory and a tree on this host."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from agents.cache import commands
from agents.cache.backends.base import Backend, CacheError
from agents.cache.backends.directory import Directory
from agents.cache.backends.registry import open_backend
from agents.cache.commands import Answer, Context
from agents.cache.place import HostPlace
from agents.cache.settings import Scope, Settings

TRUSTED = Scope("p", ("p",), "p")
FORK = Scope("p.forks/7", ("p.forks/7", "p"), "p.forks")
KIB = 1024


class Broken(Directory):
    """A store that fails."""

    def entries(self, scope: str) -> list[object]:  # type: ignore[override]
        raise CacheError("the store is away")


class House:
    """Runs commands in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tree = root / "tree"
        self.tree.mkdir()
        self.store = Directory(root / "cache")
        self.settings = Settings("directory", root / "cache", project="p", bucket="b")
        self.given: dict[str, str] = {"HOME": str(root / "home")}
        self.scope = TRUSTED

    def context(self, backend: Backend | None = None) -> Context:
        def opened() -> Backend:
            return backend or self.store

        place = HostPlace(str(self.tree))
        return Context(self.settings, opened, self.scope, place, self.given)

    def __call__(self, *words: str) -> Answer:
        return commands.run(words, self.context())

    def write(self, path: str, size: int = 10) -> Path:
        file = self.tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        # bytes that do not pack
        file.write_bytes(os.urandom(size))
        return file

    def stored(self, scope: str = "p") -> list[str]:
        return sorted(entry.name for entry in self.store.entries(scope))


@pytest.fixture
def cache(tmp_path: Path) -> House:
    return House(tmp_path)


# --- store and restore ---


def test_a_stored_tree_comes_back(cache: House) -> None:
    file = cache.write("deps/a/b")
    data = file.read_bytes()
    (cache.tree / "deps" / "link").symlink_to("a/b")
    assert cache("store", "k", "deps").code == 0
    file.unlink()
    answer = cache("restore", "k")
    assert answer.code == 0
    assert answer.out[-1].startswith("HIT: 'k'")
    assert file.read_bytes() == data
    assert (cache.tree / "deps" / "link").is_symlink()


def test_absolute_paths_come_back_to_where_they_were(cache: House, tmp_path: Path) -> None:
    outside = tmp_path / "home" / "file"
    outside.parent.mkdir()
    outside.write_text("x")
    assert cache("store", "k", str(outside.parent)).code == 0
    outside.unlink()
    assert cache("restore", "k").code == 0
    assert outside.read_text() == "x"


@pytest.mark.parametrize("method", ["zstd", "gzip"])
def test_methods(cache: House, method: str) -> None:
    cache.settings = replace(cache.settings, method=method)
    file = cache.write("x")
    cache("store", "k", "x")
    file.unlink()
    assert cache("restore", "k").code == 0
    assert file.exists()


def test_a_store_never_overwrites(cache: House) -> None:
    file = cache.write("x")
    cache("store", "k", "x")
    first = file.read_bytes()
    cache.write("x")
    assert cache("store", "k", "x") == Answer(out=["Key 'k' already exists."])
    cache("restore", "k")
    assert file.read_bytes() == first


def test_a_path_that_is_not_there_is_told_and_no_failure(cache: House) -> None:
    assert cache("store", "k", "nope") == Answer(out=["'nope' doesn't exist locally."])
    assert cache.stored() == []


def test_a_tree_beyond_the_limit_is_told_and_no_failure(cache: House) -> None:
    cache.settings = replace(cache.settings, size=KIB)
    cache.write("x", 5 * KIB)
    answer = cache("store", "k", "x")
    assert answer.code == 0
    assert "too large" in answer.out[0]
    assert cache.stored() == []


def test_a_store_takes_several_keys(cache: House) -> None:
    cache.write("x")
    cache("store", "a/1", "x")
    answer = cache("store", "a/1,b,c/2", "x")
    assert answer.out[0] == "Key 'a-1' already exists."
    assert cache.stored() == ["a-1", "b", "c-2"]


def test_a_restore_takes_the_first_hit_and_misses_are_no_failure(cache: House) -> None:
    cache.write("x")
    cache("store", "gems-main-1", "x")
    answer = cache("restore", "nope,gems-main,other")
    assert answer.code == 0
    assert answer.out[0] == "MISS: 'nope'."
    assert answer.out[1].startswith("HIT: 'gems-main-1'")
    assert cache("restore", "nope") == Answer(out=["MISS: 'nope'."])


def test_without_a_key_lock_files_say_what(cache: House) -> None:
    cache.write("yarn.lock")
    module = cache.write("node_modules/x")
    yarn = cache.root / "home" / ".cache" / "yarn" / "y"
    yarn.parent.mkdir(parents=True)
    yarn.write_text("y")
    cache.given["SEMAPHORE_GIT_BRANCH"] = "main"
    cache("store")
    assert [key.rpartition("-")[0] for key in cache.stored()] == [
        "node-modules-main",
        "yarn-cache-main",
    ]
    module.unlink()
    yarn.unlink()
    cache.write("yarn.lock")  # changed: falls back to the branch
    answer = cache("restore")
    assert answer.code == 0
    assert module.exists()
    assert yarn.exists()


def test_without_lock_files_there_is_nothing_to_do(cache: House) -> None:
    for command in ("store", "restore"):
        answer = cache(command)
        assert (answer.code, len(answer.out)) == (0, 1)


def test_a_broken_archive_fails_and_makes_way(cache: House, tmp_path: Path) -> None:
    cache.write("x")
    cache("store", "k", "x")
    (tmp_path / "cache" / "p" / "k").write_bytes(b"\x28\xb5\x2f\xfd nonsense")
    answer = cache("restore", "k")
    assert answer.code == 1
    assert "broken" in answer.err[0]
    assert cache.stored() == []


def test_a_broken_archive_of_another_scope_stays(cache: House, tmp_path: Path) -> None:
    cache.write("x")
    cache("store", "k", "x")
    (tmp_path / "cache" / "p" / "k").write_bytes(b"nonsense" * 100)
    cache.scope = FORK
    assert cache("restore", "k").code == 1
    assert cache.stored() == ["k"]


# --- room ---


@pytest.mark.parametrize(
    ("flag", "gone"),
    [((), "old"), (("--cleanup-by", "SIZE"), "small"), (("-c", "ACCESS_TIME"), "unused")],
)
def test_old_archives_make_room(cache: House, flag: tuple[str, ...], gone: str) -> None:

    for name, size, stored, accessed in (
        ("old", 8, 1000, 9000),
        ("small", 6, 2000, 8000),
        ("unused", 8, 3000, 7000),
    ):
        cache.write(name, size * KIB)
        cache("store", name, name)
        os.utime(cache.root / "cache" / "p" / name, (accessed, stored))
    cache.settings = replace(cache.settings, size=26 * KIB)
    cache.write("new", 5 * KIB)
    answer = cache("store", "new", "new", *flag)
    assert f"Removed '{gone}'" in answer.out[0]
    assert cache.stored() == sorted({"old", "small", "unused", "new"} - {gone})


def test_forks_make_room_among_forks_only(cache: House) -> None:
    cache.write("x", 10 * KIB)
    cache("store", "trusted", "x")
    cache.settings = replace(cache.settings, size=15 * KIB)
    cache.scope = Scope("p.forks/6", ("p.forks/6", "p"), "p.forks")
    cache("store", "six", "x")
    cache.scope = FORK
    answer = cache("store", "seven", "x")
    assert "Removed '6/six'" in answer.out[0]
    assert cache.stored() == ["trusted"]
    assert cache.stored("p.forks") == ["7/seven"]


# --- forks ---


def test_a_fork_reads_the_trusted_scope_and_cannot_write_it(cache: House) -> None:
    cache.write("x")
    cache("store", "k", "x")
    cache.scope = FORK
    assert cache("restore", "k").out[0].startswith("HIT")
    assert cache("has_key", "k").code == 0
    cache("store", "poison", "x")
    cache("delete", "k")
    cache("clear")
    assert cache.stored() == ["k"]


def test_what_a_fork_stored_is_not_seen_by_others(cache: House) -> None:
    cache.write("x")
    cache.scope = FORK
    cache("store", "k", "x")
    assert cache("has_key", "k").code == 0
    cache.scope = TRUSTED
    assert cache("has_key", "k").code == 1
    cache.scope = Scope("p.forks/8", ("p.forks/8", "p"), "p.forks")
    assert cache("has_key", "k").code == 1


# --- questions and removal ---


def test_has_key_is_exact(cache: House) -> None:
    cache.write("x")
    cache("store", "a/key", "x")
    assert cache("has_key", "a/key").code == 0
    assert cache("has_key", "a-ke").code == 1


def test_is_not_empty(cache: House) -> None:
    assert cache("is_not_empty") == Answer(1)
    cache.write("x")
    cache("store", "k", "x")
    assert cache("is_not_empty") == Answer(0)


def test_list(cache: House) -> None:
    for name, size in (("a", 10), ("bigger", 5 * KIB)):
        cache.write(name, size)
        cache("store", name, name)
    lines = cache("list", "--sort-by=SIZE").out
    assert lines[0].split() == ["NAME", "SIZE", "STORED", "ACCESSED"]
    assert [line.split()[0] for line in lines[1:]] == ["bigger", "a"]
    assert len(cache("list", "-s", "ACCESS_TIME").out) == 3


def test_usage(cache: House) -> None:
    cache.settings = replace(cache.settings, size=10 * KIB)
    assert cache("usage").out == ["FREE SPACE: 10.0K", "USED SPACE: 0B"]
    cache.settings = replace(cache.settings, size=0)
    assert cache("usage").out[0] == "FREE SPACE: (unlimited)"


def test_delete_and_clear(cache: House) -> None:
    cache.write("x")
    cache("store", "a,b,c", "x")
    assert cache("delete", "a").out == ["Key 'a' is deleted."]
    assert cache("delete", "a") == Answer(out=["Key 'a' doesn't exist."])
    assert cache.stored() == ["b", "c"]
    assert cache("clear").code == 0
    assert cache.stored() == []


def test_checksum_is_an_md5(cache: House) -> None:
    (cache.tree / "file").write_text("hello\n")
    assert cache("checksum", "file") == Answer(out=["b1946ac92492d2347c6235b4d2611184"])
    assert cache("checksum", "nope").code == 1


# --- exit codes ---

STORE_AND_RESTORE = [("store", "k", "x"), ("restore", "k")]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        *((words, 1) for words in STORE_AND_RESTORE),
        (("has_key", "k"), 2),
        (("is_not_empty",), 2),
        (("list",), 1),
        (("clear",), 1),
        (("usage",), 1),
    ],
)
def test_failures_have_exit_codes(cache: House, words: tuple[str, ...], code: int) -> None:
    answer = commands.run(words, cache.context(Broken(cache.root)))
    assert (answer.code, answer.err) == (code, [f"cache {words[0]}: the store is away"])
    unusable = commands.run(words, CacheError("no settings"))
    assert unusable.code == code


@pytest.mark.parametrize("words", STORE_AND_RESTORE)
def test_a_fault_of_the_cache_need_not_fail_a_step(cache: House, words: tuple[str, ...]) -> None:
    cache.given["CACHE_FAIL_ON_ERROR"] = "false"
    assert commands.run(words, cache.context(Broken(cache.root))).code == 0
    del cache.given["CACHE_FAIL_ON_ERROR"]
    cache.settings = replace(cache.settings, fail_on_error=False)
    assert commands.run(words, cache.context(Broken(cache.root))).code == 0
    assert commands.run(("has_key", "k"), cache.context(Broken(cache.root))).code == 2
    cache.given["CACHE_FAIL_ON_ERROR"] = "true"
    assert commands.run(words, cache.context(Broken(cache.root))).code == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 1),
        (("frobnicate",), 1),
        (("store", "k"), 1),
        (("store", "k", "a", "b"), 1),
        (("store", "k", "a", "-c"), 1),
        (("store", "k", "a", "-c", "NAME"), 1),
        (("restore", "a", "b"), 1),
        (("has_key",), 2),
        (("is_not_empty", "k"), 2),
        (("list", "k"), 1),
        (("delete",), 1),
        (("checksum",), 1),
    ],
)
def test_wrong_usage(cache: House, words: tuple[str, ...], code: int) -> None:
    answer = cache(*words)
    assert answer.code == code
    assert "Usage: cache COMMAND" in answer.err


def test_a_tree_that_cannot_be_unpacked_is_told(cache: House) -> None:
    file = cache.write("deps/x")
    cache("store", "k", "deps")
    file.unlink()
    (file / "in the way").mkdir(parents=True)
    answer = cache("restore", "k")
    assert answer.code == 1
    assert "tar cannot unpack" in answer.err[0]
    assert cache.stored() == ["k"]


def test_metrics_of_the_original(cache: House) -> None:
    cache.given["SEMAPHORE_TOOLBOX_METRICS_ENABLED"] = "true"
    cache.write("x")
    (line,) = cache("store", "k", "x").metrics
    assert line.startswith("usercache,server=b,user=p,command=store,corrupt=0 size=")
    assert cache("restore", "k").metrics[0].startswith("usercache,server=b,user=p,command=restore")


# --- the same over S3 ---


@pytest.fixture
def bucket(cache: House, s3: Settings) -> House:
    """Commands over a bucket."""
    cache.settings, cache.store = s3, open_backend(s3)  # type: ignore[assignment]
    return cache


def test_every_command_works_over_a_bucket(bucket: House) -> None:
    assert bucket("is_not_empty").code == 1
    file = bucket.write("deps/x")
    content = file.read_bytes()
    assert bucket("store", "a/b,other", "deps").code == 0
    assert bucket("store", "other", "deps").out == ["Key 'other' already exists."]
    assert bucket.stored() == ["a-b", "other"]
    assert [bucket("has_key", key).code for key in ("a/b", "oth")] == [0, 1]
    assert bucket("is_not_empty").code == 0
    assert [line.split()[0] for line in bucket("list", "-s", "SIZE").out[1:]] == ["a-b", "other"]
    assert bucket("usage").out[0] == "FREE SPACE: (unlimited)"
    file.unlink()
    assert bucket("restore", "none,oth").out[1].startswith("HIT: 'other'")
    assert file.read_bytes() == content
    assert bucket("delete", "other").out == ["Key 'other' is deleted."]
    assert bucket("clear").code == 0
    assert bucket.stored() == []


@pytest.mark.parametrize("order", ["STORE_TIME", "SIZE", "ACCESS_TIME"])
def test_a_bucket_has_a_limit_too(bucket: House, order: str) -> None:
    for name, size in (("large", 9), ("small", 7)):
        bucket.write(name, size * KIB)
        bucket("store", name, name)
    bucket.settings = replace(bucket.settings, size=20 * KIB)
    bucket.write("new", 5 * KIB)
    answer = bucket("store", "new", "new", "--cleanup-by", order)
    # S3 counts seconds: which of the two is older is sure by size only
    gone = "small" if order == "SIZE" else answer.out[0].split("'")[1]
    assert answer.out[0].startswith(f"Removed '{gone}'")
    assert bucket.stored() == sorted({"large", "small", "new"} - {gone})
    assert bucket("usage").out[0].startswith("FREE SPACE: ")
    bucket.write("huge", 21 * KIB)
    assert "too large for the cache" in bucket("store", "huge", "huge").out[0]


def test_a_fork_cannot_write_to_the_trusted_part_of_a_bucket(bucket: House) -> None:
    bucket.write("x")
    bucket("store", "k", "x")
    bucket.scope = FORK
    assert bucket("restore", "k").out[0].startswith("HIT")
    bucket("store", "poison", "x")
    bucket("delete", "k")
    bucket("clear")
    assert bucket.stored() == ["k"]
    assert bucket.stored("p.forks") == []
