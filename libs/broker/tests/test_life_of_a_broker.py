from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from kio.schema.init_producer_id.v0 import InitProducerIdRequest

from tlsy.broker import Broker, BrokerSettings
from tlsy.broker.api import NO_THROTTLE
from tlsy.testkit.ports import free_port


async def described(address):
    admin = AIOKafkaAdminClient(bootstrap_servers=str(address))
    await admin.start()
    try:
        return (await admin.describe_cluster())["cluster_id"], await admin.list_topics()
    finally:
        await admin.close()


async def create_topic(address):
    admin = AIOKafkaAdminClient(bootstrap_servers=str(address))
    await admin.start()
    await admin.create_topics([NewTopic("topic", 1, 1)])
    await admin.close()


async def test_a_restarted_broker_is_empty_and_says_so_by_another_cluster_id():
    broker = Broker(BrokerSettings())
    address = await broker.start()
    await create_topic(address)
    first_id, topics = await described(address)
    assert topics == ["topic"]
    await broker.stop()
    second_id, topics = await described(await broker.start())
    await broker.stop()
    assert topics == []
    assert first_id != second_id


async def test_it_listens_where_it_is_told_by_an_address_that_is_held_already():
    broker = Broker(BrokerSettings())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = await broker.start(listener)
        assert address == listener.getsockname()
        await create_topic(address)
        await broker.stop()
        assert listener.fileno() == -1


async def test_producer_ids_of_an_earlier_start_are_not_given_again(connect):
    given = []
    for _ in range(2):
        async with Broker(BrokerSettings()) as broker:
            client = await connect(str(broker.address))
            request = InitProducerIdRequest(transactional_id=None, transaction_timeout=NO_THROTTLE)
            given.append((await client.ask(request)).producer_id)
    assert abs(given[0] - given[1]) > 1_000_000


async def test_a_client_survives_a_restart_on_the_same_port():
    broker = Broker(BrokerSettings(port=free_port()))
    address = await broker.start()
    await create_topic(address)
    producer = AIOKafkaProducer(
        bootstrap_servers=str(address), enable_idempotence=True, retry_backoff_ms=20, metadata_max_age_ms=200
    )
    await producer.start()
    await producer.send_and_wait("topic", b"lost with the memory")
    await broker.stop()
    again = Broker(BrokerSettings(port=address.port))
    await again.start()
    await create_topic(address)
    assert (await producer.send_and_wait("topic", b"kept")).offset == 0
    await producer.stop()
    await again.stop()


async def test_a_stop_ends_long_polls_and_rebalances_at_once(connect, join_request, long_poll):
    broker = Broker(BrokerSettings())
    address = str(await broker.start())
    await create_topic(address)
    leader, follower, poller = [await connect(address) for _ in range(3)]
    await leader.ask(join_request("group", timeout_s=30))
    waiting = [
        asyncio.create_task(follower.ask(join_request("group", timeout_s=30))),
        asyncio.create_task(poller.ask(long_poll("topic", max_wait_s=9))),
    ]
    done, _ = await asyncio.wait(waiting, timeout=0.1)
    assert not done
    async with asyncio.timeout(5):
        await broker.stop()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(end, asyncio.IncompleteReadError | ConnectionError) for end in ends)


@pytest.mark.parametrize("turns", range(5))
async def test_who_connects_while_it_stops_is_hung_up_on(turns, recwarn):
    broker = Broker(BrokerSettings())
    address = await broker.start()
    with socket.socket() as client:
        client.setblocking(False)
        client.connect_ex((address.host, address.port))
        for _ in range(turns):
            await asyncio.sleep(0)
        await broker.stop()
    gc.collect()
    assert not recwarn.list


async def test_a_stop_that_is_cut_short_leaves_nothing_open():
    broker = Broker(BrokerSettings())
    address = await broker.start()
    stopping = asyncio.create_task(broker.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(address.host, address.port)


async def test_stopping_twice_and_starting_twice_are_safe():
    broker = Broker(BrokerSettings())
    await broker.stop()
    await broker.start()
    with pytest.raises(RuntimeError):
        await broker.start()
    await broker.stop()
    await broker.stop()
    with pytest.raises(RuntimeError):
        _ = broker.address


async def test_stand_alone_it_serves_until_sigterm():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tlsy.broker", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        line = (await process.stdout.readline()).decode()
        await create_topic(line.removeprefix("listening on ").strip())
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


def test_settings_that_cannot_work_are_all_named():
    with pytest.raises(ValueError, match=r"max_topics.*; port.*; max_partition_bytes must hold two"):
        BrokerSettings(max_topics=0, port=70_000, max_partition_bytes=1_100_000)
