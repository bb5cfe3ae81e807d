from __future__ import annotations

from dataclasses import replace

import pytest

from tlsy.tenancy.context import IsolationMode
from tlsy.tenancy.errors import OutboxNotDrained
from tlsy.tenancy.provisioning import DesiredState

MODES = [IsolationMode.SHARED, IsolationMode.DEDICATED]
EVENT = """
insert into web_shop.outbox (tenant_id, day, event_id, key, type, source, epoch, occurred_at, data)
values ($1, (now() at time zone 'utc')::date, gen_random_uuid(), 'k', 'a.type', 'web-shop', 1, now(), '')
"""
LEFT = "select count(*) from web_shop.outbox where tenant_id = $1"
#: What the relay writes once the broker has a record, as the role of the relay.
PUBLISH = "update web_shop.outbox set published_at = now()"


@pytest.mark.parametrize("plane", ["placement", "control"])
@pytest.mark.parametrize("mode", MODES)
async def test_erasing_waits_until_the_relay_has_published_every_event(installation, mode, plane):
    entry = await installation.provisioned_tenant(mode)
    place = entry.placement if plane == "placement" else installation.control
    owner = await installation.connect(None, place)
    await owner.execute(EVENT, entry.tenant_id)
    for _ in range(2):
        with pytest.raises(OutboxNotDrained):
            await installation.converge(replace(entry, epoch=2), DesiredState.ERASED)
    assert await owner.fetchval(LEFT, entry.tenant_id) == 1
    relay = await installation.connect("tlsy_relay", place)
    assert await relay.execute(PUBLISH) == "UPDATE 1"
    await relay.close()
    await owner.close()
    await installation.converge(replace(entry, epoch=2), DesiredState.ERASED)


async def test_a_batch_never_takes_what_is_not_published_and_it_counts_as_left(installation):
    entry = await installation.provisioned_tenant()
    owner = await installation.connect(None, installation.common)
    await owner.execute(EVENT, entry.tenant_id)
    while await owner.fetchval("select tlsy.erase_batch($1, 100)", entry.tenant_id):
        pass
    assert await owner.fetchval(LEFT, entry.tenant_id) == 1
    assert await owner.fetchval("select tlsy.occupied($1)", entry.tenant_id) == "web_shop.outbox"


async def test_erasing_reads_no_partition_from_end_to_end(installation):
    gone, *others = [await installation.provisioned_tenant() for _ in range(3)]
    owner = await installation.connect(None, installation.common)
    await owner.execute(
        "select tlsy.ensure_partition('shared.readings', 'day', now()::date - n) "
        "from generate_series(1, 30) as n"
    )
    for entry in (gone, *others):
        await owner.execute(
            "insert into shared.readings select $1, now() - (n % 30) * interval '1 day', n "
            "from generate_series(1, 3000) as n",
            entry.tenant_id,
        )
    await owner.execute("analyze shared.readings")
    read = "select sum(seq_scan) from pg_stat_xact_user_tables where relname ~ '^readings_p'"
    async with owner.transaction():
        erased, before = 0, await owner.fetchval(read)
        while count := await owner.fetchval("select tlsy.erase_batch($1, 40)", gone.tenant_id):
            erased += count
        assert not await owner.fetch("select tlsy.occupied($1)", gone.tenant_id)
        assert (erased, await owner.fetchval(read)) == (3001, before)
    assert await owner.fetchval("select count(*) from shared.readings") == 6000
