"""The own Redis: which binary is used, and that its agents' user can only take tickets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery
import kombu
import pytest
import redis as redis_py
from asgiref.sync import async_to_sync, sync_to_async
from channels.layers import get_channel_layer

from builds import dispatch, events
from ciserver import env
from ciserver.celery import app
from ciserver.embedded import keys, redis
from pipeline.routing import TICKET_TASK, TICKET_TRANSPORT, redis_py_url
from tests import services
from tests.agents.test_link import certificates

__all__ = ["certificates"]

QUEUE = "ci.q.exec.linux.amd64"


def fake_redis(folder: Path, version: str) -> str:
    """A program that says it is a redis-server of that version."""
    path = folder / "redis-server"
    path.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=00000000:0 malloc=jemalloc'\n")
    path.chmod(0o755)
    return str(path)


def test_the_version_is_read(tmp_path: Path) -> None:
    assert redis.version_of(fake_redis(tmp_path, "6.0.16")) == (6, 0, 16)


def test_a_too_old_redis_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = fake_redis(tmp_path, "6.0.16")
    monkeypatch.setattr(redis, "_candidates", lambda: [old])

    with pytest.raises(redis.Unusable, match=r"redis-server is Redis 6\.0\.16, but 6\.2 or newer"):
        redis.find()


def test_a_newer_one_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    paths = [fake_redis(old, "5.0.7"), fake_redis(new, "7.2.4")]
    monkeypatch.setattr(redis, "_candidates", lambda: paths)

    assert redis.find().path == paths[1]


def test_no_redis_at_all_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "_candidates", list)

    with pytest.raises(redis.Unusable, match="no redis-server is installed"):
        redis.find()


def test_an_external_redis_that_is_away_is_named_without_its_password() -> None:
    url = f"redis://:hunter2@127.0.0.1:{services.free_port()}/0"

    with pytest.raises(redis.Unusable, match="does not answer") as caught:
        redis.check_external(url)

    assert "hunter2" not in str(caught.value)


@pytest.fixture(scope="module")
def own_redis() -> Iterator[env.Env]:
    """The settings of a server whose own Redis runs."""
    with services.short_folder() as folder:
        keys.ensure(folder)
        settings = env.read({"CISERVER_DATA_DIR": str(folder)})
        argv = [redis.find().path, str(redis.prepare(settings))]
        path = env.socket_path(settings.data_dir)
        with services.running(argv, folder / "redis.log"):
            services.wait_for("Redis", lambda: redis.answers(path))
            yield settings


def client(url: str) -> redis_py.Redis:
    return redis_py.Redis.from_url("unix" + url.removeprefix("redis+socket"))


@pytest.mark.service
def test_the_servers_tickets_reach_the_agents_user(own_redis: env.Env) -> None:
    server = celery.Celery("server", set_as_current=False)
    server.conf.update(
        broker_url=own_redis.redis_url, broker_transport_options=dict(TICKET_TRANSPORT)
    )
    with server.connection_for_write() as connection:
        producer = connection.Producer()
        for number in range(3):
            producer.publish({"n": number}, routing_key=QUEUE, task=TICKET_TASK)
    taken: list[Any] = []
    options = dict(TICKET_TRANSPORT)
    with kombu.Connection(own_redis.agent_redis_url, transport_options=options) as connection:
        queue = kombu.Queue(QUEUE, channel=connection.default_channel)
        with kombu.Consumer(
            connection.default_channel,
            [queue],
            callbacks=[lambda body, _message: taken.append(body)],
            no_ack=True,
        ):
            while len(taken) < 3:
                connection.drain_events(timeout=60)
        connection.default_channel.close()

    assert [body["n"] for body in taken] == [0, 1, 2]


@pytest.mark.service
@pytest.mark.parametrize(
    "command",
    [
        ("LPUSH", QUEUE, "forged"),
        ("PUBLISH", "ci.ch", "forged"),
        ("EVAL", "return 1", "0"),
        ("KEYS", "*"),
        ("BRPOP", "ci.srv.work", "1"),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("FLUSHALL",),
    ],
    ids=lambda command: command[0],
)
def test_the_agents_user_may_nothing_else(own_redis: env.Env, command: tuple[str, ...]) -> None:
    agent = client(own_redis.agent_redis_url)

    with agent, pytest.raises(redis_py.exceptions.NoPermissionError):
        agent.execute_command(*command)


@pytest.mark.service
def test_nobody_gets_in_without_a_password(own_redis: env.Env) -> None:
    address = "unix://" + str(env.socket_path(own_redis.data_dir))
    stranger = redis_py.Redis.from_url(address)

    with stranger, pytest.raises(redis_py.exceptions.AuthenticationError):
        stranger.ping()


@pytest.mark.service
def test_an_external_redis_that_is_new_enough_is_accepted(
    redis_service: services.Redis,
) -> None:
    redis.check_external(redis_service.url)


@pytest.fixture
def tls_redis(certificates: Path) -> Iterator[services.Redis]:
    """A Redis with a certificate that its own authority has signed."""
    with services.short_folder() as folder:
        service = services.Redis(services.free_port(), folder, tls=certificates)
        with service.run():
            yield service


def secured(service: services.Redis, certificates: Path, *, known: bool) -> str:
    """The address as a server uses it that knows the authority, or does not."""
    pair = {name: certificates / f"{name}.pem" for name in ("cert", "key")}
    own = f"ssl_certfile={pair['cert']}&ssl_keyfile={pair['key']}"  # this Redis asks for one, too
    given = {"CISERVER_REDIS_URL": f"{service.url}?{own}"}
    return env.read(
        given | ({"CISERVER_REDIS_CA_FILE": str(pair["cert"])} if known else {})
    ).redis_url


def rings(address: str) -> bool:
    """Whether a ticket can be put there with the options of the server's app."""
    server = celery.Celery("server", set_as_current=False)
    server.conf.update(
        broker_url=address, broker_transport_options=app.conf.broker_transport_options
    )
    try:
        with server.connection_for_write() as connection:
            connection.Producer().publish({}, routing_key=QUEUE, task=TICKET_TASK)
    except dispatch.BROKER_FAULTS as fault:
        assert "CERTIFICATE_VERIFY_FAILED" in str(fault)
        return False
    return True


def hears(settings: Any, address: str) -> bool:
    """Whether a doorbell that is rung there is heard through the websocket layer."""
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [{"address": redis_py_url(address)}], "prefix": "ci.ch"},
        }
    }

    async def listen() -> Any:
        layer = get_channel_layer()
        assert layer is not None
        try:
            channel = await layer.new_channel()
            await layer.group_add("build-1", channel)
            await sync_to_async(events.send)(("build-1",), {"type": "stage.changed"})
            return await layer.receive(channel)
        finally:
            await layer.flush()

    try:
        return bool(async_to_sync(listen)() == {"type": "stage.changed"})
    except redis_py.RedisError as fault:
        assert "CERTIFICATE_VERIFY_FAILED" in str(fault)
        return False


@pytest.mark.service
def test_tickets_and_doorbells_go_to_a_redis_whose_authority_is_named(
    tls_redis: services.Redis, certificates: Path, settings: Any
) -> None:
    address = secured(tls_redis, certificates, known=True)

    redis.check_external(address)
    assert rings(address)
    assert hears(settings, address)


@pytest.mark.service
def test_nothing_goes_to_a_redis_that_is_not_trusted(
    tls_redis: services.Redis, certificates: Path, settings: Any
) -> None:
    address = secured(tls_redis, certificates, known=False)

    with pytest.raises(redis.Unusable) as caught:
        redis.check_external(address)

    assert str(caught.value) == (
        f"the Redis of CISERVER_REDIS_URL (rediss://127.0.0.1:{tls_redis.port}/0) is not trusted "
        "(self-signed certificate): name the authority's file in CISERVER_REDIS_CA_FILE"
    )
    assert not rings(address)
    assert not hears(settings, address)
