"""What every test stands on: an own data dir, real key files, no Redis, both databases."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Property tests take as long as the machine needs, and try the same examples every time.
hypothesis.settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("steady")

_HOME = Path(tempfile.mkdtemp(prefix="ciserver-tests-"))

# Before Django reads its settings: nothing of this machine's own environment may reach a test.
_DATABASE = os.environ.get("CISERVER_TEST_DATABASE_URL", "")
for _name in [name for name in os.environ if name.startswith(("CISERVER_", "DRONE_", "GIT_"))]:
    if _name != "CISERVER_CORPUS":  # where the tests' own material is
        del os.environ[_name]
if _DATABASE:  # tests/builds/test_postgres.py runs the domain's tests again like this
    os.environ["CISERVER_DATABASE_URL"] = _DATABASE
# An agent of ours that runs the tests has commands that would be found before those of the tests.
os.environ["PATH"] = os.pathsep.join(
    folder
    for folder in os.environ["PATH"].split(os.pathsep)
    if not (Path(folder) / "artifact").exists()
)
# Nor a dozen samples of hooks into every repository of a test.
os.environ["GIT_TEMPLATE_DIR"] = ""
os.environ["CISERVER_DATA_DIR"] = str(_HOME / "data")
os.environ["CISERVER_PUBLIC_URL"] = "http://ci.example.com"
os.environ["CISERVER_REDIS_URL"] = f"redis+socket://{_HOME}/no-redis-in-unit-tests.sock"
os.environ["CISERVER_LOG_LEVEL"] = "warning"
os.environ["DJANGO_SETTINGS_MODULE"] = "ciserver.settings"

from ciserver.embedded import keys  # noqa: E402 - the environment comes first
from tests import services  # noqa: E402
from tests.corpus.summary import pytest_terminal_summary  # noqa: E402, F401 - a hook

keys.ensure(_HOME / "data")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let every database test use all databases, asked for by marker or by fixture."""
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        marker = item.get_closest_marker("django_db")
        if marker is not None:
            item.add_marker(
                pytest.mark.django_db(*marker.args, **{"databases": "__all__", **marker.kwargs}),
                append=False,
            )
        elif names & {"db", "transactional_db"}:
            item.add_marker(
                pytest.mark.django_db(databases="__all__", transaction="transactional_db" in names)
            )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tests and modules stay to the end: do not look for garbage among them again and again."""
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    """Load the settings; pytest-django, whose turn is later, then sets Django up."""
    from django.conf import settings

    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.STATIC_ROOT = None
    settings.WHITENOISE_USE_FINDERS = True
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """SQLite of tests need not survive a power cut."""
    from django.db import connections

    for connection in connections.all():
        options = connection.settings_dict["OPTIONS"]
        if "init_command" in options:
            options["init_command"] = options["init_command"].replace(
                "synchronous=FULL", "synchronous=OFF"
            )


@pytest.fixture(autouse=True)
def data_dir(settings: Any) -> Path:
    """A fresh data dir per test, so that mirrors, logs and keys of tests do not meet.

    It is made by who writes to it; most tests do not, and thousands of folders take their time.
    """
    folder = _HOME / uuid.uuid4().hex
    settings.DATA_DIR = folder
    return folder


@pytest.fixture(autouse=True)
def silent_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Every message that would go to the broker, as (task name, options); none is sent."""
    from celery import Celery

    sent: list[tuple[str, dict[str, Any]]] = []

    def send_task(_app: Celery, name: str, *_args: Any, **options: Any) -> None:
        sent.append((name, options))

    monkeypatch.setattr(Celery, "send_task", send_task)
    yield sent


@pytest.fixture(scope="session")
def redis_service() -> Iterator[services.Redis]:
    """A real Redis, one per test process."""
    with services.redis() as service:
        yield service


@pytest.fixture(scope="session")
def postgres_service() -> Iterator[services.Postgres]:
    """A real PostgreSQL, one per test process."""
    with services.postgres() as service:
        yield service


@pytest.fixture(scope="session")
def docker_address() -> str:
    """The address of the Docker engine."""
    return services.docker_engine()


@pytest.fixture
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    with services.chromium() as chrome:
        yield chrome


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--repeat", type=int, default=1, help="run each test of tests/faults so many times"
    )
    parser.addoption(
        "--away",
        type=int,
        action="append",
        default=[],
        help="how long servers are away in tests/faults, with the lease times of every day: "
        "seconds, may be repeated",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`make faults N=20`: each fault test N times over. `make absences`: with long absences."""
    times = metafunc.config.getoption("--repeat")
    if times > 1 and "faults" in metafunc.definition.path.parts:
        metafunc.fixturenames.append("repetition")
        metafunc.parametrize("repetition", range(times))
    if "absences" in metafunc.fixturenames:
        long = metafunc.config.getoption("--away")
        metafunc.parametrize(
            "absences",
            [pytest.param((s,), marks=pytest.mark.timeout(s + 600), id=f"{s}s") for s in long]
            or [pytest.param((1, 8), id="short")],
        )
