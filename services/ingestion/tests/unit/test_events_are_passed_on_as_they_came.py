"""The messages that hold events unread are the same bytes as those that hold them read."""

import pytest

from tlsy.contracts.ingestion.events.v1 import events_pb2
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.contracts.ingestion.v1.encoded_pb2 import EncodedEvents, EncodedRequest


@pytest.mark.parametrize("count", [0, 1, 300])
def test_events_of_a_request_become_those_of_a_record(make_events, count):
    events = make_events(count, labels={"host": "web-1", "ville": "Besançon"}, data=b'{"a":1}')
    request = pb.IngestEventsRequest(parent="tenants/a", events=events).SerializeToString()
    encoded = EncodedRequest.FromString(request).events
    record = EncodedEvents(events=encoded).SerializeToString()
    assert list(events_pb2.EventsAccepted.FromString(record).events) == events


def test_events_of_a_producers_record_are_read_in_both_ways(make_events):
    events = make_events(3)
    record = events_pb2.ProducedEvents(events=events).SerializeToString()
    encoded = EncodedEvents.FromString(record).events
    assert [pb.Event.FromString(event) for event in encoded] == events
