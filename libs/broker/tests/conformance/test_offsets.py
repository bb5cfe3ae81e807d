from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

BASE_MS = 1_700_000_000_000


async def test_beginning_and_end_of_an_empty_partition_are_zero(kafka):
    topic = await kafka.create_topic()
    reader = await kafka.reader_of(topic)
    place = TopicPartition(topic, 0)
    assert (await reader.beginning_offsets([place]), await reader.end_offsets([place])) == (
        {place: 0},
        {place: 0},
    )


async def test_the_end_is_behind_the_last_record(kafka):
    topic = await kafka.create_topic(2)
    await kafka.send(topic, b"1", b"2", b"3", partition=1)
    places = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    reader = await kafka.reader_of(topic)
    assert await reader.end_offsets(places) == {places[0]: 0, places[1]: 3}


async def test_the_first_record_since_a_time_is_found_in_and_between_batches(kafka):
    topic = await kafka.create_topic()
    for base_ms in (BASE_MS, BASE_MS + 1000):
        producer = await kafka.producer(linger_ms=50)
        for step_ms in (0, 100, 200):
            await producer.send(topic, b"x", partition=0, timestamp_ms=base_ms + step_ms)
        await producer.flush()
    reader = await kafka.reader_of(topic)
    place = TopicPartition(topic, 0)

    async def since(timestamp_ms):
        found = (await reader.offsets_for_times({place: timestamp_ms}))[place]
        return found and (found.offset, found.timestamp - BASE_MS)

    assert await since(BASE_MS - 5) == (0, 0)
    assert await since(BASE_MS + 150) == (2, 200)
    assert await since(BASE_MS + 201) == (3, 1000)
    assert await since(BASE_MS + 1200) == (5, 1200)
    assert await since(BASE_MS + 1201) is None


@pytest.mark.parametrize("offset", [4, 1_000])
async def test_reading_beyond_the_end_is_out_of_range(kafka, offset):
    topic = await kafka.create_topic()
    await kafka.send(topic, b"1", b"2", b"3")
    reader = await kafka.consumer(auto_offset_reset="none")
    place = TopicPartition(topic, 0)
    reader.assign([place])
    reader.seek(place, offset)
    with pytest.raises(OffsetOutOfRangeError):
        await reader.getone()
