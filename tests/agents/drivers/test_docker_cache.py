from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agents.cache.container import tar_of
from agents.drivers.base import DriverError
from agents.drivers.docker_cache import Image, Usage, clean, to_remove
from agents.drivers.docker_container import OWNER_LABEL
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


# --- a real engine, of which only what the test made is touched ---

DAY = 86400.0


class Mine(Engine):
    """The real engine, but of its images only those of this test are seen."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.prefix = f"ciserver-test/mine-{uuid.uuid4().hex}"

    def images(self) -> list[Mapping[str, Any]]:
        return [
            one
            for one in super().images()
            if any(name.startswith(self.prefix) for name in one["RepoTags"] or ())
        ]

    def make(self, name: str, size: int) -> str:
        data = tar_of({name: name * size}, 0o644)
        repository = f"{self.prefix}-{name}"
        self._call(lambda api: api.import_image_from_data(data, repository, "1"))
        return f"{repository}:1"

    def left(self) -> set[str]:
        return {name.rpartition("-")[2] for one in self.images() for name in one["RepoTags"]}


@pytest.fixture
def mine() -> Iterator[Mine]:
    engine = Mine(Options(server="http://ci", token="x"))
    yield engine
    for one in engine.images():
        for name in one["RepoTags"]:
            engine.remove_image(name)


@pytest.fixture
def usage(mine: Mine, tmp_path: Path) -> Usage:
    """Three images: one was used ten days ago, one five, one just now."""
    now, days = time.time(), [10.0]
    found = Usage(tmp_path / "images.json", lambda: now - days[0] * DAY)
    for name, ago in (("ten", 10.0), ("five", 5.0), ("new", 0.0)):
        days[0] = ago
        found.note(mine.make(name, 100_000))
    return found


@pytest.fixture
def make(mine: Mine) -> Iterator[Callable[..., str]]:
    """Makes objects of any kind that are removed at the end."""
    made: list[tuple[str, str]] = []

    def one(kind: str, labels: Mapping[str, str], image: str = "") -> str:
        name = f"ciserver-{uuid.uuid4().hex}"
        if kind == "volume":
            mine.make_volume(name, labels)
        elif kind == "network":
            mine.make_network(name, labels, {})
        else:
            mine.create(name, {"Image": image, "Cmd": ["x"], "Labels": dict(labels)})
        made.append((kind, name))
        return name

    yield one
    for kind, name in made:
        with contextlib.suppress(DriverError):
            getattr(mine, f"remove_{kind}")(name)


@pytest.mark.service
@pytest.mark.xdist_group("docker")
@pytest.mark.parametrize(
    ("bounds", "left"),
    [
        ({}, {"ten:1", "five:1", "new:1"}),
        ({"clean_age": 7 * DAY}, {"five:1", "new:1"}),
        ({"clean_age": 2 * DAY}, {"new:1"}),
        ({"clean_size": 900_000}, {"five:1", "new:1"}),
        ({"clean_size": 500_000}, {"new:1"}),
        ({"clean_size": 500_000, "clean_ignore": ("*/*-ten:1",)}, {"ten:1"}),
    ],
)
def test_images_of_a_real_engine_go_by_age_and_size(
    mine: Mine, usage: Usage, bounds: dict[str, Any], left: set[str]
) -> None:
    # sizes: 300,000, 400,000 and 300,000 bytes
    clean(mine, Options(server="http://ci", token="x", **bounds), usage)

    assert mine.left() == left


@pytest.mark.service
@pytest.mark.xdist_group("docker")
def test_an_image_in_use_stays(mine: Mine, usage: Usage, make: Callable[..., str]) -> None:
    make("container", {}, f"{mine.prefix}-ten:1")

    clean(mine, Options(server="http://ci", token="x", clean_age=DAY), usage)

    assert mine.left() == {"ten:1", "new:1"}


@pytest.mark.service
@pytest.mark.xdist_group("docker")
def test_what_has_expired_goes_and_the_rest_stays(
    mine: Mine, usage: Usage, make: Callable[..., str]
) -> None:
    def all_kinds(labels: Mapping[str, str]) -> set[str]:
        kinds = ("container", "network", "volume")
        return {make(kind, labels, f"{mine.prefix}-new:1") for kind in kinds}

    label = "io.drone.expires"
    gone = all_kinds({OWNER_LABEL: "somebody", label: "1000"})
    kept = all_kinds({OWNER_LABEL: "somebody", label: str(int(time.time() + DAY))})
    kept |= all_kinds({label: "1000"})  # not of an agent of ours

    clean(mine, Options(server="http://ci", token="x"), usage)

    def names(api: Any) -> set[str]:
        return {
            *(one["Names"][0].lstrip("/") for one in api.containers(all=True)),
            *(one["Name"] for one in api.networks()),
            *(one["Name"] for one in api.volumes()["Volumes"] or ()),
        }

    there = mine._call(names)
    assert not gone & there
    assert kept <= there
