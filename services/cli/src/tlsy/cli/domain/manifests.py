"""Country and Tenant documents (apiVersion tls-y.io/v1), and how what is differs from what they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tlsy.cli.domain.errors import UsageError
from tlsy.cli.domain.names import cluster_name, country_name, slug, tenant_name
from tlsy.contracts.tenant_registry.v1 import tenant_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from google.protobuf.descriptor import EnumDescriptor

API_VERSION: Final = "tls-y.io/v1"
_MAX_DOCUMENTS: Final = 10_000
#: What an entitlement's number may be.
_MOST: Final = 2**63 - 1

_TEXTS: Final[Mapping[str, str]] = {
    "displayName": "display_name",
    "locale": "locale",
    "timeZone": "time_zone",
    "currency": "currency_code",
}
_ENUMS: Final[Mapping[str, tuple[str, EnumDescriptor]]] = {
    "sectorProfile": ("sector_profile", tenant_pb2.SectorProfile.DESCRIPTOR),
    "isolationMode": ("isolation_mode", tenant_pb2.IsolationMode.DESCRIPTOR),
    "tier": ("tier", tenant_pb2.Tier.DESCRIPTOR),
    "providerAccess": ("provider_access", tenant_pb2.ProviderAccess.DESCRIPTOR),
}
_REFERENCES: Final[Mapping[str, Callable[[str], str]]] = {
    "country": country_name,
    "parent": tenant_name,
    "cluster": cluster_name,
}
_COLLECTIONS: Final = ("hostNames", "modules", "entitlements")
#: What UpdateTenant changes; the rest is set at creation, by a move, or by calls of its own.
_UPDATABLE: Final = (
    "display_name",
    "locale",
    "time_zone",
    "currency_code",
    "tier",
    "provider_access",
    "host_names",
)
_FIXED: Final = ("country", "parent", "sector_profile", "isolation_mode", "cluster")


@dataclass(frozen=True, slots=True)
class Documents:
    """What was asked for: countries first, then tenants, parents before their children."""

    countries: tuple[tenant_pb2.Country, ...]
    tenants: tuple[tenant_pb2.Tenant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantChanges:
    """How an existing tenant differs from its document. What a document leaves out is left as it is.

    Attributes:
        mask: fields for UpdateTenant.
        modules: (id, on or off), to be set.
        entitlements: key to value, to be set.
        fixed: fields that cannot be changed by an update, and differ.
    """

    mask: tuple[str, ...]
    modules: tuple[tuple[str, bool], ...]
    entitlements: Mapping[str, int]
    fixed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.mask or self.modules or self.entitlements)


def enum_value(kind: EnumDescriptor, text: str) -> int | None:
    """The number of "shared" or "SHARED" in an enum whose names have a prefix; None if there is none."""
    name = f"{_prefix(kind)}{text.upper().replace('-', '_')}"
    return next((value.number for value in kind.values if value.number and value.name == name), None)


def enum_names(kind: EnumDescriptor) -> list[str]:
    """The names that `enum_value` takes: SHARED, SCHEMA, DEDICATED."""
    return [value.name.removeprefix(_prefix(kind)) for value in kind.values if value.number]


def _prefix(kind: EnumDescriptor) -> str:
    return kind.values_by_number[0].name.removesuffix("UNSPECIFIED")


def read(documents: Iterable[tuple[str, Any]], problems: list[str]) -> Documents:
    """Every document, checked.

    Args:
        documents: (where it is from, for messages; the parsed YAML), empty ones included.
        problems: what was wrong with others, known when the last document is.

    Raises:
        UsageError: its details name everything that is wrong with any of them.
    """
    countries: dict[str, tenant_pb2.Country] = {}
    tenants: dict[str, tenant_pb2.Tenant] = {}
    for count, (source, document) in enumerate(documents):
        if count >= _MAX_DOCUMENTS:
            problems.append(f"{source}: more than {_MAX_DOCUMENTS} documents")
            break
        if document is not None:
            _read_one(source, document, countries, tenants, problems)
    ordered = _parents_first(tenants, problems)
    if problems:
        raise UsageError(
            f"The documents have {len(problems)} problem(s); nothing was applied.",
            "Correct them and apply again.",
            problems,
        )
    return Documents(tuple(countries.values()), ordered)


def changes(wanted: tenant_pb2.Tenant, found: tenant_pb2.Tenant) -> TenantChanges:
    """How `found` differs from `wanted`."""
    asked = {field.name for field, _ in wanted.ListFields()}
    entitlements = {
        key: value
        for key, value in wanted.entitlement_overrides.items()
        if found.entitlement_overrides.get(key) != value
    }
    on, wished = set(found.modules), set(wanted.modules)
    modules = [(module, True) for module in sorted(wished - on)]
    if wished:
        modules += [(module, False) for module in sorted(on - wished)]
    return TenantChanges(
        mask=_differing(_UPDATABLE, asked, wanted, found),
        modules=tuple(modules),
        entitlements=entitlements,
        fixed=_differing(_FIXED, asked, wanted, found),
    )


def country_changes(wanted: tenant_pb2.Country, found: tenant_pb2.Country) -> tuple[str, ...]:
    """Fields for UpdateCountry: in which `found` differs from what `wanted` does not leave out."""
    changed = {
        "display_name": wanted.display_name not in {"", found.display_name},
        "allowed_cluster_countries": bool(wanted.allowed_cluster_countries)
        and set(wanted.allowed_cluster_countries) != set(found.allowed_cluster_countries),
    }
    return tuple(field for field, differs in changed.items() if differs)


def _differing(
    fields: Sequence[str], asked: set[str], wanted: tenant_pb2.Tenant, found: tenant_pb2.Tenant
) -> tuple[str, ...]:
    return tuple(name for name in fields if name in asked and _plain(wanted, name) != _plain(found, name))


def _plain(tenant: tenant_pb2.Tenant, field: str) -> object:
    value = getattr(tenant, field)
    return sorted(value) if field == "host_names" else value


def _read_one(
    source: str,
    document: Any,
    countries: dict[str, tenant_pb2.Country],
    tenants: dict[str, tenant_pb2.Tenant],
    problems: list[str],
) -> None:
    if not isinstance(document, Mapping):
        problems.append(f"{source}: a document is a mapping")
        return
    kind = document.get("kind")
    if document.get("apiVersion") != API_VERSION or kind not in {"Country", "Tenant"}:
        problems.append(f"{source}: apiVersion must be {API_VERSION} and kind Country or Tenant")
        return
    name = _name_of(document)
    where = f"{source}: {kind} {name or '(no name)'}"
    spec = document.get("spec")
    unknown = sorted(map(str, document.keys() - {"apiVersion", "kind", "metadata", "spec"}))
    problems += [f"{where}: {member}: unknown member" for member in unknown]
    if not name or not isinstance(spec, Mapping):
        problems.append(f"{where}: needs metadata.name and spec")
        return
    if (countries if kind == "Country" else tenants).keys() & {name}:
        problems.append(f"{where}: is there twice")
        return
    if kind == "Country":
        countries[name] = _country(name, spec, where, problems)
    else:
        tenants[name] = _tenant(name, spec, where, problems)


def _name_of(document: Mapping[Any, Any]) -> str:
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return name if isinstance(name, str) else ""


def _country(name: str, spec: Mapping[Any, Any], where: str, problems: list[str]) -> tenant_pb2.Country:
    _unknown(spec, {"displayName", "allowedClusterCountries"}, where, problems)
    return tenant_pb2.Country(
        name=country_name(name),
        display_name=_text(spec, "displayName", where, problems),
        allowed_cluster_countries=[
            country_name(code) for code in _texts(spec, "allowedClusterCountries", where, problems)
        ],
    )


def _tenant(name: str, spec: Mapping[Any, Any], where: str, problems: list[str]) -> tenant_pb2.Tenant:
    _unknown(spec, {*_TEXTS, *_ENUMS, *_REFERENCES, *_COLLECTIONS}, where, problems)
    members: dict[str, Any] = {
        field: _text(spec, member, where, problems) for member, field in _TEXTS.items()
    }
    for member, (field, kind) in _ENUMS.items():
        text = _text(spec, member, where, problems)
        number = enum_value(kind, text) if text else 0
        if number is None:
            problems.append(f"{where}: spec.{member}: {text!r} is none of {', '.join(enum_names(kind))}")
        members[field] = number or 0
    for member, whole in _REFERENCES.items():
        text = _text(spec, member, where, problems)
        members[member] = whole(text) if text else ""
    return tenant_pb2.Tenant(
        name=tenant_name(name),
        host_names=_texts(spec, "hostNames", where, problems),
        modules=_texts(spec, "modules", where, problems),
        entitlement_overrides=_numbers(spec, "entitlements", where, problems),
        **members,
    )


def _unknown(spec: Mapping[Any, Any], known: set[str], where: str, problems: list[str]) -> None:
    problems += [
        f"{where}: spec.{member}: unknown member" for member in sorted(map(str, spec.keys() - known))
    ]


def _text(spec: Mapping[Any, Any], member: str, where: str, problems: list[str]) -> str:
    value = spec.get(member)
    if value is None or isinstance(value, str):
        return value or ""
    # YAML reads an unquoted `no` (Norway) as false.
    problems.append(f"{where}: spec.{member}: must be a text; put it in quotes")
    return ""


def _texts(spec: Mapping[Any, Any], member: str, where: str, problems: list[str]) -> list[str]:
    value = spec.get(member) or []
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    problems.append(f"{where}: spec.{member}: must be a list of texts; put each in quotes")
    return []


def _numbers(spec: Mapping[Any, Any], member: str, where: str, problems: list[str]) -> dict[str, int]:
    value = spec.get(member) or {}
    if isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(item, int) and abs(item) <= _MOST for key, item in value.items()
    ):
        return {key: int(item) for key, item in value.items()}
    problems.append(f"{where}: spec.{member}: must map keys to whole numbers")
    return {}


def _parents_first(
    tenants: Mapping[str, tenant_pb2.Tenant], problems: list[str]
) -> tuple[tenant_pb2.Tenant, ...]:
    """In an order in which each tenant's parent, where it is among them, comes before it."""
    done: dict[str, tenant_pb2.Tenant] = {}
    left = dict(tenants)
    while left:
        next_ones = [name for name, tenant in left.items() if slug(tenant.parent) not in left]
        if not next_ones:
            problems.append(f"parents form a cycle: {', '.join(sorted(left))}")
            return ()
        for name in next_ones:
            done[name] = left.pop(name)
    return tuple(done.values())


def module_order(
    switched: Sequence[tuple[str, bool]], requires: Mapping[str, Sequence[str]]
) -> tuple[tuple[str, bool], ...]:
    """The same changes, so that what is required goes on before what requires it, and off after it."""

    def depth(module: str, seen: frozenset[str] = frozenset()) -> int:
        below = [depth(other, seen | {module}) for other in requires.get(module, ()) if other not in seen]
        return 1 + max(below, default=0)

    off = sorted((m for m, on in switched if not on), key=depth, reverse=True)
    on = sorted((m for m, on in switched if on), key=depth)
    return (*((module, False) for module in off), *((module, True) for module in on))
