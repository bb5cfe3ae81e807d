from __future__ import annotations

from uuid import UUID

import pytest

from tlsy.identity.domain.bindings import Granter, leaves_no_administrator, may_give, role_problems
from tlsy.identity.domain.ids import PrincipalKind, PrincipalRef

PERMITS = {
    "client-admin": frozenset({"users.write", "rules.write"}),
    "operator": frozenset({"incidents.write"}),
    "agent": frozenset({"events.write"}),
    "viewer": frozenset[str](),
    "onboarding": frozenset({"users.write"}),
    "internal-admin": frozenset({"users.write", "tenants.create"}),
}
USER, KEY = PrincipalKind.USER, PrincipalKind.API_KEY
ADA, BOB = PrincipalRef(USER, UUID(int=1)), PrincipalRef(USER, UUID(int=2))


def test_nobody_gives_a_role_with_a_permission_that_it_lacks() -> None:
    granter = Granter(permissions=frozenset({"users.write"}), onboarding=False)
    assert not may_give(granter, "client-admin", USER, PERMITS)
    assert may_give(granter, "viewer", USER, PERMITS)


@pytest.mark.parametrize(
    ("role", "kind", "given"),
    [
        ("client-admin", USER, True),
        ("client-admin", KEY, False),
        ("agent", KEY, True),
        ("agent", USER, False),
        ("operator", USER, False),
    ],
)
def test_onboarding_makes_the_first_administrator_and_keys_for_agents_only(
    role: str,
    kind: PrincipalKind,
    given: bool,  # noqa: FBT001  a table of cases
) -> None:
    granter = Granter(permissions=PERMITS["onboarding"], onboarding=True)
    assert may_give(granter, role, kind, PERMITS) is given


@pytest.mark.parametrize(
    ("role", "in_platform_tenant", "reasons"),
    [
        ("internal-admin", False, ["ROLE_OF_PLATFORM_ONLY"]),
        ("internal-admin", True, []),
        ("onboarding", True, ["ROLE_UNKNOWN"]),
        ("emperor", True, ["ROLE_UNKNOWN"]),
        ("operator", False, []),
    ],
)
def test_some_roles_are_bound_to_nobody(
    role: str,
    in_platform_tenant: bool,  # noqa: FBT001  a table of cases
    reasons: list[str],
) -> None:
    problems = role_problems("role", role, PERMITS, in_platform_tenant=in_platform_tenant)
    assert [problem.reason for problem in problems] == reasons


def test_the_last_administrator_stays_and_others_may_go() -> None:
    assert leaves_no_administrator([ADA], ADA)
    assert not leaves_no_administrator([ADA, BOB], ADA)
    assert not leaves_no_administrator([ADA], BOB)
    assert not leaves_no_administrator([], BOB)
