from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import TransactionalIdAuthorizationFailed
from kio.schema.errors import ErrorCode
from kio.schema.init_producer_id.v0 import InitProducerIdRequest

from tlsy.broker.api import NO_THROTTLE
from tlsy.testkit.kafka import embedded_broker


async def test_a_transactional_producer_is_told_so_at_once():
    async with embedded_broker() as address:
        producer = AIOKafkaProducer(bootstrap_servers=address, transactional_id="any")
        with pytest.raises(TransactionalIdAuthorizationFailed):
            async with asyncio.timeout(2):
                await producer.start()
        await producer.stop()


async def test_no_producer_id_is_given_for_a_transaction(connect):
    async with embedded_broker() as address:
        client = await connect(address)
        request = InitProducerIdRequest(transactional_id="any", transaction_timeout=NO_THROTTLE)
        response = await client.ask(request)
    assert response.error_code is ErrorCode.transactional_id_authorization_failed
