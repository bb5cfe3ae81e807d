"""The messages that hold events unread are the same bytes as those that hold them read."""

import pytest
from google.protobuf.descriptor import FieldDescriptor as Field

from tlsy.contracts.ingestion.events.v1 import events_pb2
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.contracts.ingestion.v1.encoded_pb2 import EncodedEvent, EncodedEvents, EncodedRequest, Label


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


def shape(message):
    """Numbers and names of a message's fields, with the types of those that both of a pair read."""
    types = {Field.TYPE_ENUM: Field.TYPE_INT32, Field.TYPE_MESSAGE: Field.TYPE_BYTES}
    return {
        (field.number, field.name, types.get(field.type, field.type), field.is_repeated, field.has_presence)
        for field in message.fields
    }


@pytest.mark.parametrize(
    ("unread", "read"),
    [
        (EncodedRequest, pb.IngestEventsRequest),
        (EncodedEvents, events_pb2.EventsAccepted),
        (EncodedEvents, events_pb2.ProducedEvents),
        (EncodedEvent, pb.Event),
        (Label, pb.Event.LabelsEntry),
    ],
    ids=lambda each: each.DESCRIPTOR.name,
)
def test_a_field_that_the_one_has_the_other_has_too(unread, read):
    """What only Event had would be taken and not be stored."""
    assert shape(unread.DESCRIPTOR) == shape(read.DESCRIPTOR)
