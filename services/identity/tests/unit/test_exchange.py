from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from tlsy.identity.domain.exchange import ExchangeRequest, Granted, ProviderAccess, Refused, decide

PLATFORM, HEAD, CHILD, OTHER = (UUID(int=number) for number in range(1, 5))
PROVIDER = ExchangeRequest(
    origin=PLATFORM,
    platform=PLATFORM,
    already_exchanged=False,
    target=CHILD,
    target_ancestors=(HEAD,),
    target_active=True,
    provider_access=ProviderAccess.FULL,
    onboarded=False,
)


@pytest.mark.parametrize(
    ("access", "onboarded", "outcome"),
    [
        (ProviderAccess.FULL, True, Granted("client-admin")),
        (ProviderAccess.ONBOARDING, False, Granted("onboarding")),
        (ProviderAccess.ONBOARDING, True, Refused("ONBOARDING_CLOSED")),
        (ProviderAccess.NONE, False, Refused("PROVIDER_ACCESS_DENIED")),
    ],
)
def test_the_provider_gets_what_the_tenant_lets_it_have(
    access: ProviderAccess,
    onboarded: bool,  # noqa: FBT001  a table of cases
    outcome: Granted | Refused,
) -> None:
    assert decide(replace(PROVIDER, provider_access=access, onboarded=onboarded)) == outcome


def test_a_head_office_administers_its_subsidiary_whatever_the_provider_may() -> None:
    assert decide(replace(PROVIDER, origin=HEAD, provider_access=ProviderAccess.NONE)) == Granted(
        "client-admin"
    )


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (replace(PROVIDER, origin=OTHER), "NOT_AN_ANCESTOR"),
        (replace(PROVIDER, origin=CHILD, target=HEAD, target_ancestors=()), "NOT_AN_ANCESTOR"),
        (replace(PROVIDER, origin=CHILD), "TARGET_IS_ORIGIN"),
        (replace(PROVIDER, already_exchanged=True), "ALREADY_EXCHANGED"),
        (replace(PROVIDER, target_active=False), "TENANT_NOT_ACTIVE"),
    ],
)
def test_outside_the_hierarchy_nothing_is_exchanged(request_: ExchangeRequest, reason: str) -> None:
    assert decide(request_) == Refused(reason)
