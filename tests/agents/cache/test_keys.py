"""Keys: their form, what they match, which lock files stand for which."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agents.cache import keys
from agents.cache.backends.base import CacheError, Entry

SUM = "0123456789abcdef0123456789abcdef"


def entry(name: str, size: int = 1, stored: float = 0.0, accessed: float = 0.0) -> Entry:
    return Entry(name, size, stored, accessed)


def detected(*files: str, **given: str) -> list[tuple[str, str]]:
    found = keys.detect(lambda name: SUM if name in files else None, given)
    return [(one.path, one.key) for one in found]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (".nvmrc", [("/home/me/.nvm", "nvm")]),
        ("Gemfile.lock", [("vendor/bundle", "gems")]),
        ("package-lock.json", [("node_modules", "node-modules")]),
        ("yarn.lock", [("/home/me/.cache/yarn", "yarn-cache"), ("node_modules", "node-modules")]),
        ("mix.lock", [("deps", "mix-deps"), ("_build", "mix-build")]),
        ("requirements.txt", [(".pip_cache", "requirements")]),
        ("composer.lock", [("vendor", "composer")]),
        ("pom.xml", [(".m2", "maven"), ("target", "maven-target")]),
        ("Podfile.lock", [("Pods", "pods")]),
        ("go.sum", [("/home/me/go/pkg/mod", "go")]),
    ],
)
def test_lock_files_stand_for_trees(file: str, expected: list[tuple[str, str]]) -> None:
    found = detected(file, HOME="/home/me", SEMAPHORE_GIT_BRANCH="dev")
    assert found == [(path, f"{prefix}-dev-{SUM}") for path, prefix in expected]


def test_several_lock_files_are_taken_in_order() -> None:
    found = detected("go.sum", "Gemfile.lock")
    assert [path for path, _ in found] == ["vendor/bundle", "/root/go/pkg/mod"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "master"),
        ({"SEMAPHORE_GIT_BRANCH": "dev"}, "dev"),
        ({"SEMAPHORE_GIT_BRANCH": "dev", "SEMAPHORE_GIT_PR_BRANCH": "fix"}, "fix"),
    ],
)
def test_branch_of_keys(given: Mapping[str, str], expected: str) -> None:
    assert keys.branch(given) == expected


def test_detected_keys_fall_back_to_branches() -> None:
    given = {"SEMAPHORE_GIT_BRANCH": "a/b", "DRONE_REPO_BRANCH": "trunk"}
    (found,) = keys.detect(lambda name: SUM if name == "go.sum" else None, given)
    plain = [key.replace("\\", "") for key in found.wanted]
    assert plain == [f"go-a-b-{SUM}", "go-a-b", "go-trunk", "go-master", "go-main"]


def test_keys_have_no_slash_and_split_at_commas() -> None:
    assert keys.split("a/b, c,,d") == ["a-b", "c", "d"]


@pytest.mark.parametrize("key", ["", ",", "..", ".", "a\x00b", "k" * 500])
def test_keys_no_store_can_hold_are_refused(key: str) -> None:
    with pytest.raises(CacheError):
        keys.split(key)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("gems-main", "gems-main"),  # exact beats newer ones it is found in
        ("gems", "gems-main-2"),  # the newest it is found in
        ("main", "gems-main-2"),  # anywhere
        ("^ms", None),
        ("main$", "gems-main"),
        ("c++", "c++"),  # no regular expression: letter by letter
        ("nope", None),
    ],
)
def test_what_a_key_stands_for(key: str, expected: str | None) -> None:
    entries = [
        ("s", entry("gems-main", stored=1)),
        ("s", entry("gems-main-2", stored=3)),
        ("s", entry("gems-main-1", stored=2)),
        ("s", entry("c++", stored=0)),
    ]
    found = keys.choose(key, entries)
    assert (found[1].name if found else None) == expected


def test_an_exact_name_of_the_own_scope_goes_first() -> None:
    entries = [("own", entry("k", stored=1)), ("trusted", entry("k", stored=2))]
    assert keys.choose("k", entries) == entries[0]


@pytest.mark.parametrize(
    ("order", "gone"),
    [("STORE_TIME", ["old"]), ("SIZE", ["small"]), ("ACCESS_TIME", ["unused", "old"])],
)
def test_what_is_evicted(order: str, gone: list[str]) -> None:
    entries = [
        entry("old", 40, stored=1, accessed=2),
        entry("unused", 20, stored=2, accessed=1),
        entry("small", 30, stored=3, accessed=3),
    ]
    entries[1] = entry("unused", 31, stored=2, accessed=1)
    limit, need = 101 if order != "ACCESS_TIME" else 80, 30
    found = keys.to_evict(entries, need, limit, order)
    assert [one.name for one in found] == gone


def test_nothing_is_evicted_while_there_is_room() -> None:
    assert keys.to_evict([entry("a", 50)], 50, 100, "STORE_TIME") == []


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(CacheError, match="SIZE"):
        keys.ordered([], "NAME")
