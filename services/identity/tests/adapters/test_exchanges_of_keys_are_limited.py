from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest

from tlsy.identity.adapters.postgres import read_statements
from tlsy.identity.adapters.postgres.api_keys import PostgresApiKeys
from tlsy.identity.adapters.postgres.directories import PostgresDirectories
from tlsy.identity.adapters.postgres.role_bindings import PostgresRoleBindings
from tlsy.identity.domain.api_keys import PresentedKey, parse, render
from tlsy.identity.domain.ids import KeyId
from tlsy.identity.handlers.budgets import Budgets, ExchangeLimits
from tlsy.identity.handlers.exchange_api_key import ExchangeApiKey
from tlsy.rpc.errors import ResourceExhausted, Unauthenticated
from tlsy.testkit.calls import public_call

if TYPE_CHECKING:
    from uuid import UUID

    from tlsy.testkit.clock import FakeClock
    from tlsy.testkit.installation import Installation


def limits(clock: FakeClock, each: int = 2) -> ExchangeLimits:
    return ExchangeLimits(Budgets(clock, size=each, per_s=0.1), Budgets(clock, size=3, per_s=0.5))


ACME = uuid4()


def key(tenant_id: UUID = ACME) -> PresentedKey:
    made = parse(render(tenant_id, KeyId(uuid4()), os.urandom(32)))
    assert made is not None
    return made


def too_many(limits: ExchangeLimits, key: PresentedKey) -> float:
    with pytest.raises(ResourceExhausted, match="EXCHANGE_RATE") as caught:
        limits.begin(key)
    return caught.value.retry_after_s or 0.0


def test_one_key_is_exchanged_so_often_and_others_are_not_kept_waiting(fake_clock: FakeClock) -> None:
    busy, one = key(), limits(fake_clock)
    for _ in range(2):
        one.begin(busy)
        one.good(busy)
    assert too_many(one, busy) == pytest.approx(10)
    one.begin(key())
    fake_clock.advance(10)
    one.begin(busy)


def test_while_too_many_are_refused_only_keys_that_were_good_lately_are_looked_at(
    fake_clock: FakeClock,
) -> None:
    known, one = key(), limits(fake_clock, each=5)
    one.begin(known)
    one.good(known)
    for _ in range(3):
        wrong = key()
        one.begin(wrong)
        one.refused(wrong)
    assert too_many(one, key()) == pytest.approx(2)
    one.begin(known)
    one.refused(known)
    fake_clock.advance(1)
    assert too_many(one, known) == pytest.approx(1)


def test_what_is_refused_of_one_tenants_keys_keeps_no_others_waiting(fake_clock: FakeClock) -> None:
    one = limits(fake_clock)
    for _ in range(3):
        wrong = key()
        one.begin(wrong)
        one.refused(wrong)
    too_many(one, key())
    one.begin(key(uuid4()))


async def test_the_one_too_many_reads_no_row(installation: Installation, fake_clock: FakeClock) -> None:
    tenant, sql, unused = await installation.provisioned_tenant(), read_statements(), cast("Any", None)

    class Sink:
        told = 0

        def denied(self, call: object) -> None:
            self.told += 1

        def now(self) -> object:
            return fake_clock.now()

    sink = Sink()
    exchange = ExchangeApiKey(
        installation.tenancy("identity"),
        keys=PostgresApiKeys(sql),
        bindings=PostgresRoleBindings(sql),
        directories=PostgresDirectories(sql),
        limits=limits(fake_clock),
        denials=sink,
        effects=cast("Any", sink),
        issuer=unused,
        lifetime=unused,
    )
    for expected in [Unauthenticated] * 3 + [ResourceExhausted]:
        guess = render(tenant.tenant_id, KeyId(uuid4()), os.urandom(32))
        with pytest.raises(expected):
            await exchange.run(public_call("ExchangeApiKey"), guess, ())
    assert sink.told == 3
