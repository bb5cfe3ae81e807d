"""Changes a country: its name for people, or its residency policy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.rpc.errors import FailedPrecondition, NotFound
from tlsy.rpc.etags import check_etag
from tlsy.rpc.idempotency import answer_once
from tlsy.tenancy.context import TenantState
from tlsy.tenant_registry.domain.codes import is_country
from tlsy.tenant_registry.domain.placement import policy_violations
from tlsy.tenant_registry.domain.registration import with_residency
from tlsy.tenant_registry.handlers.refusals import refuse_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tlsy.rpc.call import Call
    from tlsy.rpc.errors import Violation
    from tlsy.tenancy.unit_of_work import UnitOfWork
    from tlsy.tenant_registry.domain.placement import Country
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.catalogue import Catalogue

#: There are fewer countries in the world.
_ALL: Final = 1_000
_NAMED: Final = 20


class UpdateCountry:
    """The policy holds for the tenants that are there as well: for all of them, or it is refused."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def run(
        self,
        call: Call,
        code: str,
        etag: str,
        encode: Callable[[Country], tenant_pb2.Country],
        *,
        display_name: str | None,
        allowed: frozenset[str] | None,
        violations: Sequence[Violation] = (),
    ) -> tenant_pb2.Country:
        """The country as changed. `violations`: what was wrong with name and mask.

        Raises:
            InvalidArgument: with everything that is wrong.
            NotFound: COUNTRY_NOT_FOUND.
            Aborted: ETAG_MISMATCH.
            FailedPrecondition: RESIDENCY_IN_USE; tenants are, or are being made, on clusters that the
                policy does not allow.
        """
        refuse_all(policy_violations(display_name, allowed), violations)
        catalogue = self._catalogue
        async with catalogue.writing() as tx:

            async def act() -> tenant_pb2.Country:
                country = await catalogue.places.lock_country(tx, code) if is_country(code) else None
                if country is None:
                    raise NotFound("COUNTRY_NOT_FOUND", "There is no such country.")
                check_etag(etag, encode(country).etag)
                changed = replace(
                    country,
                    display_name=country.display_name if display_name is None else display_name,
                    allowed_cluster_countries=(
                        country.allowed_cluster_countries if allowed is None else allowed
                    ),
                )
                saved = await catalogue.places.save_country(tx, changed)
                if saved.residency != country.residency:
                    await self._apply(tx, code)
                details = {
                    "display_name": saved.display_name,
                    "allowed_cluster_countries": ",".join(sorted(saved.residency)),
                }
                catalogue.effects.audited(tx, call, f"countries/{code}", details)
                return encode(saved)

            return await answer_once(tx, call, catalogue.clock.now(), tenant_pb2.Country, act)

    async def _apply(self, tx: UnitOfWork, code: str) -> None:
        tenants, places = self._catalogue.tenants, self._catalogue.places
        residents = await self._residents(tx, code)
        among = {each.tenant_id for each in residents}
        above = {each.parent_id for each in residents if each.parent_id is not None} - among
        uppers = [upper for parent_id in above if (upper := await tenants.by_id(tx, parent_id))]
        changed = with_residency(
            residents,
            {upper.tenant_id: upper for upper in uppers},
            {each.code: each for each in await places.countries(tx, "", _ALL)},
        )
        at = {cluster.cluster_id: cluster.country for cluster in await places.clusters(tx)}
        _refuse_outside(
            each
            for each in changed
            # What is being made comes to be where it was placed, also if nothing of it is there yet.
            if (each.placed or each.phase is TenantState.PROVISIONING)
            and at[each.cluster_id] not in each.residency
        )
        for each in changed:
            await tenants.save_residency(tx, each)

    async def _residents(self, tx: UnitOfWork, code: str) -> Sequence[Tenant]:
        """Locked; also who was being created below one of them while we waited for it."""
        residents: Sequence[Tenant] = ()
        while len(found := await self._catalogue.tenants.lock_residents(tx, code)) != len(residents):
            residents = found
        return residents


def _refuse_outside(tenants: Iterable[Tenant]) -> None:
    slugs = [each.slug for each in tenants]
    if slugs:
        more = f" and {len(slugs) - _NAMED} more" if len(slugs) > _NAMED else ""
        raise FailedPrecondition(
            "RESIDENCY_IN_USE",
            f"On clusters that this policy does not allow are: {', '.join(slugs[:_NAMED])}{more}.",
        )
