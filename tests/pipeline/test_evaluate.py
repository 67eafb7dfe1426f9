from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.convert import modernise
from pipeline.convert.evaluate import Refused, alternatives, join
from pipeline.document import parse
from pipeline.errors import PipelineError
from pipeline.facts import BuildFacts, RepoFacts
from pipeline.plan import plan

REPO = RepoFacts("octo/cat", default_branch="trunk")
BUILDS = {
    "push": BuildFacts(event="push", target="main", ref="refs/heads/main"),
    "trunk": BuildFacts(event="push", target="trunk", ref="refs/heads/trunk"),
    "release": BuildFacts(event="push", target="release/1.0", ref="refs/heads/release/1.0"),
    "pull": BuildFacts(event="pull_request", target="main", ref="refs/pull/7/head"),
    "tag": BuildFacts(event="tag", ref="refs/tags/v1.0"),
    "deep": BuildFacts(event="tag", ref="refs/tags/lib/v2"),
    "manual": BuildFacts(event="custom", target="main", ref="refs/heads/main"),
    "deploy": BuildFacts(
        event="promote", target="main", ref="refs/heads/main", deploy_to="production"
    ),
}
ALL = set(BUILDS)
TAGS = {"tag", "deep"}


def chosen(expression: str, more: str = "") -> set[str]:
    """The builds for which a workflow with this condition runs."""
    quoted = expression.replace("'", "''")
    text = f"steps: {{a: {{image: b}}}}\nwhen:\n- evaluate: '{quoted}'\n{more}"
    file = parse(modernise(text, ".woodpecker.yml"))
    return {name for name, build in BUILDS.items() if plan(file, REPO, build).stages}


@pytest.mark.parametrize(
    ("expression", "builds"),
    [
        ('CI_PIPELINE_EVENT == "push"', {"push", "trunk", "release"}),
        ("'push' == CI_PIPELINE_EVENT", {"push", "trunk", "release"}),
        ('CI_PIPELINE_EVENT != "push"', ALL - {"push", "trunk", "release"}),
        ('CI_PIPELINE_EVENT == "manual"', {"manual"}),
        ('CI_PIPELINE_EVENT == "deployment"', {"deploy"}),
        ('CI_PIPELINE_EVENT == "release"', set()),
        ('CI_PIPELINE_EVENT != "release"', ALL),
        ('CI_PIPELINE_EVENT in ["tag", "manual"]', TAGS | {"manual"}),
        ('CI_PIPELINE_EVENT not in ["tag", `manual`]', ALL - TAGS - {"manual"}),
        ('CI_PIPELINE_EVENT startsWith "pull"', {"pull"}),
        ('CI_PIPELINE_EVENT matches "^(push)$"', None),
        ('CI_PIPELINE_EVENT matches "^pu"', {"push", "trunk", "release", "pull"}),
        ('CI_COMMIT_BRANCH == "main"', {"push", "pull", "manual", "deploy"}),
        ("CI_COMMIT_BRANCH == CI_REPO_DEFAULT_BRANCH", {"trunk"}),
        ("CI_COMMIT_BRANCH != CI_REPO_DEFAULT_BRANCH", ALL - {"trunk"}),
        ('CI_COMMIT_BRANCH startsWith "release/"', {"release"}),
        ('CI_COMMIT_BRANCH endsWith "n"', {"push", "pull", "manual", "deploy"}),
        ('CI_COMMIT_BRANCH contains "e/1"', {"release"}),
        ('CI_COMMIT_BRANCH not contains "a"', {"trunk"} | TAGS),
        (r'CI_COMMIT_BRANCH matches "^release/.*"', {"release"}),
        (r'CI_COMMIT_BRANCH matches "1\\.0$"', {"release"}),
        ('CI_COMMIT_BRANCH == "m*n"', set()),
        ('CI_COMMIT_TAG != ""', TAGS),
        ('CI_COMMIT_TAG == ""', ALL - TAGS),
        ('not (CI_COMMIT_TAG == "")', TAGS),
        ('CI_COMMIT_TAG startsWith "v"', {"tag"}),
        ('CI_COMMIT_TAG endsWith "v2"', {"deep"}),
        ('CI_COMMIT_REF == "refs/tags/v1.0"', {"tag"}),
        ('CI_REPO == "octo/cat"', ALL),
        ('CI_REPO_OWNER != "octo"', set()),
        ('CI_REPO_NAME == "cat"', ALL),
        ('CI_PIPELINE_DEPLOY_TARGET == "production"', {"deploy"}),
        ("true", ALL),
        ("false", set()),
        ("!true", set()),
        ('CI_COMMIT_TAG != "" || CI_PIPELINE_EVENT == "manual"', TAGS | {"manual"}),
        ('CI_PIPELINE_EVENT == "push" && CI_COMMIT_BRANCH == "main"', {"push"}),
        ('CI_PIPELINE_EVENT == "push" and CI_COMMIT_BRANCH != "main"', {"trunk", "release"}),
        (
            '!(CI_PIPELINE_EVENT == "push" || CI_COMMIT_TAG != "")',
            {"pull", "manual", "deploy"},
        ),
        (
            'CI_COMMIT_BRANCH == "main" && (CI_PIPELINE_EVENT == "push" or '
            'CI_PIPELINE_EVENT == "pull_request")',
            {"push", "pull"},
        ),
        ('CI_COMMIT_BRANCH in ["main", "trunk"] && CI_COMMIT_BRANCH startsWith "t"', {"trunk"}),
        ('CI_COMMIT_BRANCH == "main" && CI_COMMIT_BRANCH == "trunk"', set()),
        ('CI_COMMIT_BRANCH != "main" && CI_COMMIT_BRANCH != "trunk"', {"release"} | TAGS),
    ],
)
def test_expressions_that_conditions_can_say(expression: str, builds: set[str] | None) -> None:
    if builds is None:
        with pytest.raises(PipelineError):
            chosen(expression)
    else:
        assert chosen(expression) == builds


def test_an_expression_holds_together_with_what_stands_beside_it() -> None:
    expression = 'CI_PIPELINE_EVENT == "manual" || CI_COMMIT_BRANCH in ["main", "trunk"]'
    assert chosen(expression, "  event: push\n") == {"push", "trunk"}
    assert chosen(expression, "  branch: {exclude: main}\n") == {"trunk"}
    assert chosen(expression, "  branch: ma*\n") == {"push", "pull", "manual", "deploy"}
    assert chosen("false", "- event: tag\n") == TAGS


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ('CI_COMMIT_MESSAGE contains "x"', "`CI_COMMIT_MESSAGE` is nothing that conditions know"),
        ('CI_COMMIT_AUTHOR == "bot"', "`CI_COMMIT_AUTHOR`"),
        ("CI_COMMIT_BRANCH", "`CI_COMMIT_BRANCH` alone"),
        ("CI_COMMIT_BRANCH == CI_REPO", "`CI_REPO` is no text"),
        ("CI_COMMIT_BRANCH startsWith CI_REPO_DEFAULT_BRANCH", "no text"),
        ('not CI_COMMIT_BRANCH == "a"', "brackets"),
        (r'CI_COMMIT_TAG matches "^v\\d+$"', "no glob"),
        ('CI_COMMIT_TAG in ["", "v"]', "no tag"),
        ('CI_COMMIT_BRANCH == "a" ? true : false', "`?` is not understood"),
        ("len(CI_COMMIT_TAG) > 0", "`(` is not understood"),
        ('CI_COMMIT_BRANCH == "a" &&', "ends early"),
        ('(CI_COMMIT_BRANCH == "a"', "ends early"),
        ('CI_COMMIT_BRANCH == "a" CI_REPO', "`CI_REPO`"),
        ("CI_COMMIT_BRANCH in [1]", "`1`"),
        ('CI_COMMIT_BRANCH startsWith "a" && CI_COMMIT_BRANCH endsWith "b"', "two patterns"),
        ("(" * 40 + "true" + ")" * 40, "nested"),
        (" || ".join(["true"] * 300), "500 words"),
        (" || ".join(['CI_REPO == "a"'] * 60), "50 alternatives"),
        (
            " && ".join(['(CI_REPO == "a" || CI_COMMIT_BRANCH == "b")'] * 10),
            "50 alternatives",
        ),
    ],
)
def test_what_conditions_cannot_say_is_refused_by_name(expression: str, words: str) -> None:
    with pytest.raises(PipelineError) as caught:
        chosen(expression)
    [problem] = caught.value.problems
    assert (problem.code, problem.line, problem.column) == ("convert:unsupported", 3, 13)
    assert problem.message.startswith("`when.evaluate` cannot be converted: ")
    assert words in problem.message


@given(st.lists(st.sampled_from(["CI_REPO", "CI_COMMIT_TAG", "==", "!=", "not", "(", ")", "&&",
    "||", "in", "[", "]", ",", '"a"', '""', "matches", "true"]), max_size=14))  # fmt: skip
def test_arbitrary_expressions_are_read_or_refused(words: list[str]) -> None:
    try:
        for way in alternatives(" ".join(words)):
            join({}, way)
    except Refused as fault:
        assert str(fault)
