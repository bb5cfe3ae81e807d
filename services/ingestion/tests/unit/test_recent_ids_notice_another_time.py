from __future__ import annotations

from uuid import UUID

from tlsy.ingestion.domain.recent import RecentIds
from tlsy.runtime.ids import TenantId

ONE, OTHER = TenantId(UUID(int=1)), TenantId(UUID(int=2))


def rows(*events):
    return [
        (time_us, key, index, "", "", "", "", "", 2, None, "{}", None)
        for index, (time_us, key) in enumerate(events)
    ]


def test_the_same_id_with_another_time_is_noticed_within_a_batch_and_later():
    recent = RecentIds(100)
    assert recent.note(ONE, rows((1, b"a"), (2, b"a"), (1, b"b"))) == 1
    assert recent.note(ONE, rows((1, b"b"), (3, b"a"))) == 1


def test_another_tenant_s_ids_say_nothing():
    recent = RecentIds(100)
    recent.note(ONE, rows((1, b"a")))
    assert recent.note(OTHER, rows((2, b"a"))) == 0


def test_only_the_latest_are_known():
    recent = RecentIds(2)
    recent.note(ONE, rows((1, b"a"), (1, b"b")))
    assert recent.note(ONE, rows((2, b"a"))) == 1
    assert recent.note(ONE, rows((2, b"a"), (1, b"c"))) == 0
    assert recent.note(ONE, rows((2, b"b"))) == 0
