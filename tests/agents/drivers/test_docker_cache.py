from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agents.drivers.base import DriverError
from agents.drivers.docker_cache import Image, Usage, clean, to_remove
from agents.drivers.docker_engine import Engine
from agents.option_table import Options
from tests.images import busybox_image

NOW = 10_000.0


def image(name: str, size: int, used: float) -> Image:
    return Image(name, (name,), size, used)


IMAGES = [image("new", 10, NOW - 1), image("old", 20, NOW - 900), image("mid", 40, NOW - 100)]


@pytest.mark.parametrize(
    ("age_s", "size", "kept", "gone"),
    [
        (0, 0, "", []),
        (500, 0, "", ["old"]),
        (50, 0, "", ["old", "mid"]),
        (50, 0, "old", ["mid"]),
        (0, 70, "", []),
        (0, 69, "", ["old"]),
        (0, 20, "", ["old", "mid"]),
        (0, 1, "", ["old", "mid", "new"]),
        (0, 1, "new", ["old", "mid"]),
        (500, 20, "", ["old", "mid"]),
    ],
)
def test_it_chooses_the_longest_unused(age_s: float, size: int, kept: str, gone: list[str]) -> None:
    chosen = to_remove(IMAGES, NOW, age_s=age_s, size_bytes=size, keep=lambda one: one.id == kept)

    assert [one.id for one in chosen] == gone


def test_usage_survives_the_agent(tmp_path: Path) -> None:
    file = tmp_path / "images.json"
    usage = Usage(file, lambda: 5.0)
    usage.note("golang")
    usage.note("forgotten")
    usage.save(["golang:latest"])

    again = Usage(file, lambda: 9.0)

    assert again.last(["golang"]) == 5.0
    assert again.last(["forgotten"]) == 9.0
    assert again.last(["golang", "forgotten"]) == 9.0
    assert Usage(tmp_path / "none").last([]) == 0.0


class Scripted(Engine):
    """An engine with these images, of which one is in use and one cannot be removed."""

    def __init__(self) -> None:
        self.removed: list[str] = []

    def labelled(self, label: str) -> Any:
        return iter(())

    def images(self) -> list[Mapping[str, Any]]:
        return [
            {"Id": "1", "RepoTags": ["golang:latest", "golang:1"], "Size": 10},
            {"Id": "2", "RepoTags": ["redis:7"], "Size": 10},
            {"Id": "3", "RepoTags": ["stuck:1"], "Size": 10},
            {"Id": "4", "RepoTags": ["mine/tool:1"], "Size": 10},
            {"Id": "5", "RepoTags": None, "Size": 10},
        ]

    def image_ids_in_use(self) -> set[str]:
        return {"2"}

    def remove_image(self, name: str) -> None:
        if name == "stuck:1":
            raise DriverError("it is stuck")
        self.removed.append(name)


def test_it_cleans_what_nobody_uses_or_wants(tmp_path: Path) -> None:
    usage = Usage(tmp_path / "images.json", lambda: 1.0)
    options = Options(server="http://ci", token="x", clean_age=60, clean_ignore=("mine/*",))
    engine = Scripted()

    removed = clean(engine, options, usage, now=100.0)

    assert removed == engine.removed
    assert sorted(removed) == ["5", "golang:1", "golang:latest"]


def test_an_engine_that_is_away_is_not_cleaned(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/no.sock"
    options = Options(server="http://ci", token="x", docker_host=address, clean_age=1)

    assert clean(Engine(options), options, Usage(tmp_path / "images.json")) == []


@pytest.mark.service
@pytest.mark.xdist_group("docker")
def test_a_real_engine_lists_and_removes_images(tmp_path: Path) -> None:
    name = f"ciserver-test/clean-{uuid.uuid4().hex}:1"
    engine = Engine(Options(server="http://ci", token="x"))
    engine._call(lambda api: api.tag(busybox_image(), *name.split(":")))

    [found] = [one for one in engine.images() if name in (one["RepoTags"] or ())]
    engine.remove_image(name)
    engine.remove_image(name)

    assert found["Size"] > 100_000
    assert found["Id"].startswith("sha256:")
    assert not engine.has_image(name)
    assert engine.has_image(busybox_image())
