"""Where a new tenant's rows go: the residency of its country and ancestors, and what clusters can take.

What is wrong with the *request* (an unknown cluster, one abroad, one of the wrong kind) is a violation; what
is wrong with the *moment* (cordoned, full, unreachable) is `NotAllowedNowError`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tlsy.tenancy.context import IsolationMode
from tlsy.tenant_registry.domain.codes import is_country
from tlsy.tenant_registry.domain.errors import NotAllowedNowError, Violation
from tlsy.tenant_registry.domain.kinds import ClusterKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_CLUSTER_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,38}[a-z0-9]?")


def is_cluster_id(text: str) -> bool:
    """Whether a cluster may have this id."""
    return _CLUSTER_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Country:
    """The root of a hierarchy.

    Attributes:
        code: ISO 3166-1 alpha-2, lower case.
        allowed_cluster_countries: codes; clusters there may hold its tenants. Empty: its own alone.
        version: of its row.
    """

    code: str
    display_name: str
    allowed_cluster_countries: frozenset[str]
    version: int = 0

    @property
    def residency(self) -> frozenset[str]:
        """Codes of the countries whose clusters may hold this country's tenants; never empty."""
        return self.allowed_cluster_countries or frozenset({self.code})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A PostgreSQL server for tenants, as far as placing needs it.

    Attributes:
        country: code of where its disks are.
        secret_ref: where services find its address and credentials; never these themselves.
        max_tenants: 0 is unlimited.
        reachable: what the provisioner's last attempt found.
        schemas_full: its common database has as many relations as it may, as the provisioner found.
        version: grows with every change by an administrator.
    """

    cluster_id: str
    region: str
    country: str
    kind: ClusterKind
    secret_ref: str
    max_tenants: int
    cordoned: bool
    tenant_count: int
    reachable: bool
    schemas_full: bool = False
    version: int = 0

    @property
    def etag(self) -> str:
        """Changes with every change by an administrator."""
        return f"v{self.version}"

    def holds(self, mode: IsolationMode) -> bool:
        """Whether tenants of `mode` may be on it at all."""
        return self.kind is ClusterKind.SHARED or mode is IsolationMode.DEDICATED

    def full(self, mode: IsolationMode) -> bool:
        """Whether it has no room for one more tenant of `mode`."""
        no_schema = self.schemas_full and mode is IsolationMode.SCHEMA
        return no_schema or 0 < self.max_tenants <= self.tenant_count


def country_violations(country: Country) -> tuple[Violation, ...]:
    """All that is wrong with a new country."""
    found = policy_violations(country.display_name, country.allowed_cluster_countries)
    if is_country(country.code):
        return found
    why = "A country is like countries/fr (ISO 3166-1)."
    return (Violation("country.name", "COUNTRY_INVALID", why), *found)


def policy_violations(display_name: str | None, allowed: frozenset[str] | None) -> tuple[Violation, ...]:
    """All that is wrong with what may be changed of a country; None: stays as it is."""
    return tuple(_policy_violations(display_name, allowed or frozenset()))


def _policy_violations(display_name: str | None, allowed: frozenset[str]) -> Iterator[Violation]:
    if display_name is not None and not (display_name.strip() and display_name.isprintable()):
        yield Violation("country.display_name", "DISPLAY_NAME_EMPTY", "A country has a name for people.")
    for code in sorted(allowed):
        if not is_country(code):
            yield Violation(
                "country.allowed_cluster_countries",
                "COUNTRY_INVALID",
                f"{code!r} is no country (ISO 3166-1).",
            )


def cluster_violations(cluster: Cluster, *, country_known: bool) -> tuple[Violation, ...]:
    """All that is wrong with a new cluster."""
    return tuple(_cluster_violations(cluster, country_known=country_known))


def _cluster_violations(cluster: Cluster, *, country_known: bool) -> Iterator[Violation]:
    if not is_cluster_id(cluster.cluster_id):
        yield Violation(
            "cluster.name", "CLUSTER_ID_INVALID", "A cluster's id is a-z, 0-9 and hyphens, 40 at most."
        )
    if not country_known:
        yield Violation("cluster.country", "COUNTRY_UNKNOWN", "This country is not in the catalogue.")
    if not cluster.region.isprintable():
        yield Violation("cluster.region", "REGION_CHARACTERS", "A region has no control characters.")
    secret = cluster.secret_ref
    if not secret or not secret.isprintable() or "://" in secret or "@" in secret:
        yield Violation(
            "cluster.secret_ref", "SECRET_REF_INVALID", "It names a secret; it is not the secret."
        )


def residency(
    country: Country, parent_residency: frozenset[str] | None, *, own_country_only: bool
) -> frozenset[str]:
    """Codes of countries whose clusters may hold the tenant; never more than its parent's, may be empty."""
    own = frozenset({country.code}) & country.residency if own_country_only else country.residency
    return own if parent_residency is None else own & parent_residency


def requested_cluster_violations(
    requested: Cluster | None, mode: IsolationMode, allowed: frozenset[str], field: str
) -> Iterator[Violation]:
    """What is wrong with asking for `requested`; None stands for an unknown one."""
    if requested is None:
        yield Violation(field, "CLUSTER_UNKNOWN", "There is no such cluster.")
        return
    if requested.country not in allowed:
        yield Violation(
            field, "CLUSTER_OUT_OF_COUNTRY", f"The residency policy allows clusters in: {_listed(allowed)}."
        )
    if not requested.holds(mode):
        yield Violation(field, "CLUSTER_KIND_MISMATCH", f"This cluster takes no {mode} tenants.")


def choose_cluster(
    clusters: Sequence[Cluster], mode: IsolationMode, allowed: frozenset[str], home: str
) -> Cluster:
    """The cluster that takes the next tenant: at home first, DEDICATED on its own kind, then the emptiest.

    Args:
        clusters: all of them, or only the requested one.
        mode: of the tenant.
        allowed: codes of the residency.
        home: code of the tenant's country.

    Raises:
        NotAllowedNowError: NO_CLUSTER_IN_COUNTRY, NO_CLUSTER_FOR_MODE, CLUSTER_CORDONED, CLUSTER_FULL or
            CLUSTER_UNREACHABLE: the first rule that leaves no cluster; only the last is retryable.
    """
    rules: tuple[tuple[str, str, Callable[[Cluster], bool]], ...] = (
        (
            "NO_CLUSTER_IN_COUNTRY",
            f"There is no cluster in: {_listed(allowed)}.",
            lambda at: at.country in allowed,
        ),
        ("NO_CLUSTER_FOR_MODE", f"No cluster there takes {mode} tenants.", lambda at: at.holds(mode)),
        ("CLUSTER_CORDONED", "Every such cluster is closed for new tenants.", lambda at: not at.cordoned),
        ("CLUSTER_FULL", "Every such cluster is full.", lambda at: not at.full(mode)),
        ("CLUSTER_UNREACHABLE", "No such cluster can be reached now.", lambda at: at.reachable),
    )
    left = list(clusters)
    for reason, message, fits in rules:
        left = [cluster for cluster in left if fits(cluster)]
        if not left:
            raise NotAllowedNowError(reason, message, retryable=reason == "CLUSTER_UNREACHABLE")
    return min(
        left, key=lambda at: (at.country != home, at.kind.value != mode.value, at.tenant_count, at.cluster_id)
    )


def _listed(codes: frozenset[str]) -> str:
    return ", ".join(sorted(codes)) or "none"
