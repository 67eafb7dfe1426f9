from __future__ import annotations

import dataclasses
import fnmatch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import conditions
from pipeline.conditions import Subject, allows, glob, mismatch, policy, reason, stage_policy
from pipeline.document import Condition, Conditions, When, parse
from pipeline.facts import BuildFacts, RepoFacts
from pipeline.spec import ALWAYS, ON_FAILURE, ON_SUCCESS

GLOBS = [
    ("main", "main", True),
    ("main", "Main", False),
    ("*", "main", True),
    ("*", "", True),
    ("*", "feature/x", False),
    ("", "", True),
    ("", "a", False),
    ("*c", "abc", True),
    ("a*", "a", True),
    ("a*", "abc", True),
    ("a*", "ab/c", False),
    ("a*/b", "abc/b", True),
    ("a*/b", "a/c/b", False),
    ("a*b*c*d*e*/f", "axbxcxdxe/f", True),
    ("a*b?c*x", "abxbbxdbxebxczzx", True),
    ("a*b?c*x", "abxbbxdbxebxczzy", False),
    ("?", "a", True),
    ("?", "", False),
    ("?", "/", False),
    ("a?b", "a☺b", True),
    ("a???b", "a☺b", False),
    ("ab[c]", "abc", True),
    ("ab[b-d]", "abc", True),
    ("ab[e-g]", "abc", False),
    ("ab[^c]", "abc", False),
    ("ab[^e-g]", "abc", True),
    ("ab[!c]", "abd", False),
    ("ab[!c]", "ab!", True),
    ("[a-ζ]*", "δ", True),
    ("*[a-ζ]", "A", False),
    ("[\\]a]", "]", True),
    ("[\\-]", "-", True),
    ("[x\\-]", "-", True),
    ("[x\\-]", "z", False),
    ("a\\*b", "a*b", True),
    ("a\\*b", "ab", False),
    ("a\\*b", "axb", False),
    ("a\\/b", "a/b", False),
    ("ab{c,d}", "abc", True),
    ("ab{c,d}", "abe", False),
    ("ab{c,d,*}", "abcde", True),
    ("{a,b}/{c,d}", "b/c", True),
    ("{a,b*}{c,d}", "bxxd", True),
    ("v{1,2}.*", "v2.0", True),
    ("feature/*", "feature/x", True),
    ("feature/*", "feature/x/y", False),
    ("feature/**", "feature", False),
    ("feature/**", "feature/x", True),
    ("feature/**", "feature/x/y", True),
    ("a/**/b", "a/b", True),
    ("a/**/b", "a/x/y/b", True),
    ("a/**/b", "a/x/c", False),
    ("**/*.md", "a.md", True),
    ("**/*.md", "a/b/c.md", True),
    ("**/c", "b/c", True),
    ("**/c", "abcd", False),
    ("**", "a/b/c", True),
    ("**", "", True),
    ("**/**/c", "a/b/c", True),
    ("a**", "abc", True),
    ("a**", "a", True),
    ("a**", "a/b", False),
    ("**a", "bca", True),
    ("refs/heads/*", "refs/heads/main", True),
    ("refs/pull/*/head", "refs/pull/7/head", True),
    ("refs/tags/v[0-9]*", "refs/tags/v1.2.3", True),
    ("octocat/*", "octocat/hello-world", True),
    # malformed ones never match, and there is no negation
    ("a[", "a", False),
    ("a[", "ab", False),
    ("[]a]", "]", False),
    ("[-]", "-", False),
    ("[x-]", "x", False),
    ("[-x]", "x", False),
    ("[a\\", "a", False),
    ("ab{c", "abc", False),
    ("a\\", "a\\", False),
    ("!main", "topic", False),
    ("!main", "!main", True),
]


@pytest.mark.parametrize(("pattern", "name", "matches"), GLOBS)
def test_globs(pattern: str, name: str, matches: bool) -> None:
    assert glob(pattern, name) is matches


def test_a_glob_with_too_many_wildcards_matches_nothing() -> None:
    assert glob("*a" * 32, "a" * 100)
    assert not glob("*a" * 33, "a" * 100)
    assert not glob("{a,b}" * 33, "a" * 33)


@settings(deadline=None)
@given(st.text(alphabet="ab*?[]{},\\/-^", max_size=30), st.text(alphabet="ab/-", max_size=20))
def test_a_glob_never_raises_and_stays_the_same(pattern: str, name: str) -> None:
    assert glob(pattern, name) is glob(pattern, name)


@given(st.text(alphabet="ab*?", max_size=10), st.text(alphabet="ab", min_size=1, max_size=10))
def test_simple_globs_are_the_shells(pattern: str, name: str) -> None:
    if "*" in pattern and pattern.endswith("***"):
        return
    assert glob(pattern, name) is fnmatch.fnmatchcase(name, pattern)


@pytest.mark.parametrize(
    ("include", "exclude", "value", "matches"),
    [
        ((), (), "x", True),
        (("x",), (), "x", True),
        (("x",), (), "y", False),
        (("y", "x"), (), "x", True),
        ((), ("x",), "x", False),
        ((), ("x",), "y", True),
        (("*",), ("x",), "x", False),
        (("x",), ("x",), "x", False),
        (("nightly",), (), "", False),
        ((), ("prod",), "", True),
    ],
)
def test_an_exclude_wins_and_no_include_is_any(
    include: tuple[str, ...], exclude: tuple[str, ...], value: str, matches: bool
) -> None:
    assert allows(Condition(include, exclude), value) is matches


ABOUT = Subject(
    event="pull_request",
    branch="main",
    action="opened",
    ref="refs/pull/7/head",
    repo="octocat/hello",
    target="production",
    cron="nightly",
    instance="ci.example.com",
)


@pytest.mark.parametrize(
    "key", ["event", "branch", "action", "ref", "repo", "target", "cron", "instance"]
)
def test_every_property_counts(key: str) -> None:
    value = getattr(ABOUT, key)
    same = Conditions(**{key: Condition((value,))})
    other = Conditions(**{key: Condition(("other",))})
    assert mismatch(same, ABOUT) is None
    assert mismatch(other, ABOUT) == key
    assert reason((other,), ABOUT) == f"{key} `{value}` does not match"


def test_all_conditions_of_a_map_must_match() -> None:
    both = Conditions(branch=Condition(("main",)), event=Condition(("push",)))
    assert mismatch(both, ABOUT) == "event"


def test_one_alternative_is_enough() -> None:
    when: When = (
        Conditions(branch=Condition(("topic",))),
        Conditions(event=Condition(("pull_request",))),
    )
    assert conditions.match(when, ABOUT)
    assert reason(when, ABOUT) == ""
    assert reason(when, dataclasses.replace(ABOUT, event="push")) == (
        "branch `main` does not match; event `push` does not match"
    )


@pytest.mark.parametrize(
    ("include", "exclude", "paths", "matches"),
    [
        (("docs/**",), (), ("docs/a.md", "src/a.c"), True),
        (("docs/**",), (), ("src/a.c",), False),
        ((), ("docs/**",), ("docs/a.md",), False),
        ((), ("docs/**",), ("docs/a.md", "src/a.c"), True),
        (("**",), ("*.md",), ("README.md",), False),
        (("docs/**",), (), (), True),
        (("docs/**",), (), None, True),
    ],
)
def test_one_changed_file_is_enough(
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    paths: tuple[str, ...] | None,
    matches: bool,
) -> None:
    one = Conditions(paths=Condition(include, exclude))
    assert (mismatch(one, Subject(paths=paths)) is None) is matches


def when(text: str) -> When:
    file = parse(f"kind: pipeline\nsteps: [{{name: a, image: b, when: {text}}}]\n")
    return file.pipelines[0].steps[0].when


@pytest.mark.parametrize(
    ("text", "run"),
    [
        ("~", ON_SUCCESS),
        ("{event: push}", ON_SUCCESS),
        ("{event: tag}", "never"),
        ("{status: success}", ON_SUCCESS),
        ("{status: failure}", ON_FAILURE),
        ("{status: [failure]}", ON_FAILURE),
        ("{status: [success, failure]}", ALWAYS),
        ("{status: [failure, success], event: tag}", "never"),
        ("{status: '*'}", ALWAYS),
        ("{status: changed}", ON_SUCCESS),
        ("{status: {exclude: [success]}}", ON_FAILURE),
        ("{status: {exclude: [failure]}}", ON_SUCCESS),
        ("{status: {exclude: [changed]}}", ALWAYS),
        ("[{event: push}, {status: failure}]", ALWAYS),
        ("[{event: tag}, {status: failure}]", ON_FAILURE),
        ("[{event: tag}, {branch: x}]", "never"),
    ],
)
def test_run_policies(text: str, run: str) -> None:
    assert policy(when(text), Subject(event="push", branch="main")) == run


@pytest.mark.parametrize(
    ("text", "on_success", "on_failure"),
    [
        ("~", True, False),
        ("{event: push}", True, False),
        ("{status: success}", True, False),
        ("{status: failure}", False, True),
        ("{status: [success, failure]}", True, True),
        ("{status: {exclude: [success]}}", False, True),
        ("{status: {exclude: [x]}}", True, True),
        ("{status: changed}", False, False),
        ("[{event: push}, {status: failure}]", True, True),
        ("[{event: tag, status: failure}, {event: push}]", True, False),
    ],
)
def test_stage_policies(text: str, on_success: bool, on_failure: bool) -> None:
    about = Subject(event="push")
    assert stage_policy(when(text), about) == (on_success, on_failure)


def test_properties_come_from_the_facts_of_a_build() -> None:
    build = BuildFacts(
        event="promote",
        target="main",
        action="a",
        ref="refs/heads/main",
        deploy_to="production",
        cron="c",
        paths=("x",),
    )
    assert conditions.subject(RepoFacts("o/r"), build, "host") == Subject(
        "promote", "main", "a", "refs/heads/main", "o/r", "production", "c", "host", ("x",)
    )


def test_a_trigger_ignores_the_instance_and_knows_the_default_branch() -> None:
    one = Conditions(
        instance=Condition(("x",)),
        branch=Condition(("${CI_REPO_DEFAULT_BRANCH}",), ("a",)),
    )
    assert conditions.for_trigger((one,), "trunk") == (
        Conditions(branch=Condition(("trunk",), ("a",))),
    )
