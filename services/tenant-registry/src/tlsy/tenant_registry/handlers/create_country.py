"""Adds a country with its residency policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.rpc.errors import AlreadyExists
from tlsy.rpc.idempotency import answer_once
from tlsy.tenant_registry.domain.errors import refuse
from tlsy.tenant_registry.domain.placement import country_violations
from tlsy.tenant_registry.handlers.refusals import refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.rpc.call import Call
    from tlsy.tenant_registry.domain.placement import Country
    from tlsy.tenant_registry.handlers.catalogue import Catalogue


class CreateCountry:
    """Its policy places its tenants."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def run(
        self, call: Call, country: Country, encode: Callable[[Country], tenant_pb2.Country]
    ) -> tenant_pb2.Country:
        """The country. Raises InvalidArgument, AlreadyExists: COUNTRY_EXISTS."""
        catalogue = self._catalogue
        with refusals():
            refuse(country_violations(country))
        async with catalogue.writing() as tx:

            async def act() -> tenant_pb2.Country:
                if not await catalogue.places.add_country(tx, country):
                    raise AlreadyExists("COUNTRY_EXISTS", "This country is in the catalogue already.")
                allowed = ",".join(sorted(country.residency))
                catalogue.effects.audited(
                    tx, call, f"countries/{country.code}", {"allowed_cluster_countries": allowed}
                )
                return encode(country)

            return await answer_once(tx, call, catalogue.clock.now(), tenant_pb2.Country, act)
