"""Pipeline files that are not plain modern YAML, from the trigger on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from builds import triggers
from builds.models import Build, Repo, Template, User
from tests.builds.conftest import git

Make = Callable[..., Repo]
WRONG = "# b\nsteps:\n- name: a\n  image: i\n  environment:\n    A: [b]\n"


@pytest.fixture
def make(user: User, make_git: Callable[..., Path]) -> Callable[..., Build]:
    """Build a repo that holds these files."""

    def run(files: dict[str, str], config_path: str = ".drone.yml") -> Build:
        repo = Repo.objects.create(
            namespace="octocat",
            name="hello",
            slug="octocat/hello",
            config_path=config_path,
            git_http_url=f"file://{make_git(files)}",
        )
        build = triggers.create(repo, user=user)
        assert build is not None
        return build

    return run


def stages(build: Build) -> list[tuple[str, list[str]]]:
    return [(stage.name, stage.depends_on) for stage in build.stages.order_by("number")]


def test_starlark_makes_the_stages(make: Callable[..., Build]) -> None:
    source = (
        "def main(ctx): return [{'kind': 'pipeline', 'name': n} for n in [ctx.build.event, 'b']]"
    )
    build = make({".drone.star": source}, ".drone.star")
    assert stages(build) == [("custom", []), ("b", [])]
    assert build.config.data.startswith("---\n{")


def test_jsonnet_imports_where_the_server_allows_it(
    make: Callable[..., Build], settings: object
) -> None:
    files = {
        ".drone.jsonnet": "import 'ci/lib.libsonnet'",
        "ci/lib.libsonnet": "{kind: 'pipeline', name: std.extVar('repo.slug')}",
    }
    settings.JSONNET_IMPORT_LIMIT = 1  # type: ignore[attr-defined]
    assert stages(make(files, ".drone.jsonnet")) == [("octocat/hello", [])]


def test_imports_are_refused_by_default(make: Callable[..., Build]) -> None:
    build = make({".drone.jsonnet": "import 'x.libsonnet'"}, ".drone.jsonnet")
    assert build.status == "error"
    assert ".drone.jsonnet:1:1: couldn't open import" in build.error


def test_a_template_of_the_organisation_is_used(make: Callable[..., Build]) -> None:
    data = "kind: pipeline\nname: {{ .input.name }}\n"
    Template.objects.create(namespace="octocat", name="one.yml", data=data)
    Template.objects.create(namespace="other", name="one.yml", data="no")
    build = make({".drone.yml": "kind: template\nload: one.yml\ndata: {name: made}\n"})
    assert stages(build) == [("made", [])]


def test_a_missing_template_is_an_error(make: Callable[..., Build]) -> None:
    build = make({".drone.yml": "kind: template\nload: none.yml\n"})
    assert build.status == "error"
    assert "there is no template `none.yml` in octocat" in build.error


def test_an_old_file_is_converted(make: Callable[..., Build]) -> None:
    build = make({".drone.yml": "pipeline:\n  build:\n    image: golang\n    commands: [x]\n"})
    assert stages(build) == [("default", [])]


@pytest.mark.parametrize("name", [".woodpecker.yml", ".woodpecker.yaml"])
def test_a_workflow_is_converted(name: str, make: Callable[..., Build]) -> None:
    when = "when: {event: [manual, push]}\n"
    build = make({name: when + "steps:\n- {name: a, image: i, commands: [x]}\n"})
    assert len(stages(build)) == 1


def test_a_folder_of_workflows_is_one_build(make: Callable[..., Build]) -> None:
    step = "when: {event: [manual, push]}\nsteps:\n- {name: a, image: i, commands: [x]}\n"
    files = {
        ".woodpecker/test.yaml": step + "depends_on: [build]\n",
        ".woodpecker/build.yml": step,
        ".woodpecker/notes.txt": "no workflow",
    }
    assert stages(make(files)) == [("build", []), ("test", ["build"])]


@pytest.mark.parametrize(
    ("files", "place"),
    [
        (
            {
                ".woodpecker/a.yml": "steps:\n- {name: a, image: i, commands: [x]}\n",
                ".woodpecker/b.yml": WRONG,
            },
            ".woodpecker/b.yml:6:8: ",
        ),
        ({".woodpecker.yml": WRONG}, ".woodpecker.yml:6:8: "),
    ],
    ids=["folder", "file"],
)
def test_what_is_wrong_with_a_converted_file_has_its_place_there(
    files: dict[str, str], place: str, make: Callable[..., Build]
) -> None:
    build = make(files)

    assert build.status == "error"
    assert build.error.startswith(place)
    assert "of the converted file" in build.error


def test_what_is_wrong_with_what_a_program_wrote_has_no_place_in_it(
    make: Callable[..., Build],
) -> None:
    build = make(
        {".drone.star": "def main(ctx): return {'kind': 'pipeline', 'steps': 'no'}"}, ".drone.star"
    )

    assert build.error.startswith(".drone.star: ")
    assert "of the converted file" in build.error


def test_a_file_that_is_no_utf_8_is_an_error(
    user: User, make_git: Callable[..., Path], make: Callable[..., Build]
) -> None:
    folder = make_git({".drone.yml": ""})
    (folder / ".drone.yml").write_bytes(b"kind: pipeline\nname: \xe9\n")
    git(folder, "commit", "-qam", "Latin")

    build = make({"other": ""})

    assert build.status == "error"
    assert build.error == ".drone.yml:2:1: the file is not UTF-8 text"
