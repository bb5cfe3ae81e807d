"""The catalogue linter: what a database says about its own tenancy, against what it must say.

It reads PostgreSQL's catalogue and nothing else: no row of a tenant. Rules are pure functions over what was
read. Run it as a role that sees the whole catalogue (any may); a clean database gives no finding.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from tlsy.tenancy import policy_shapes, sql
from tlsy.tenancy.cluster import MIGRATOR, RELAY
from tlsy.tenancy.context import DEDICATED_SCHEMA, SHARED_SCHEMA
from tlsy.tenancy.migrations import LIBRARY_GRANTS, library_functions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import asyncpg

    from tlsy.tenancy.database import Connection
    from tlsy.tenancy.migrations import ServiceMigrations

Code = Literal[
    "RLS_OFF",
    "RLS_NOT_FORCED",
    "POLICY_MISSING",
    "POLICY_UNKNOWN",
    "NULLIF_MISSING",
    "TENANT_ID_MISSING",
    "KEY_NOT_LED_BY_TENANT",
    "REFERENCE_ACROSS_TENANTS",
    "TIME_INDEX_MISSING",
    "COLUMN_TYPE_BOUND",
    "PARTITION_GRANTED",
    "GRANT_TOO_MANY",
    "OWNER_WRONG",
    "ROLE_BYPASSES",
    "SETTING_ENTERS",
    "SECURITY_DEFINER",
    "LEAKPROOF",
    "FUNCTION_CHANGED",
    "ACTS_UNASKED",
    "PUBLISHED",
]

_OWNER: Final = "tlsy_owner"
_MOVER: Final = "tlsy_mover"
#: Roles that row-level security may not hold, and what each is a member of.
_MAY_BYPASS: Final[Mapping[str, frozenset[str]]] = {
    MIGRATOR: frozenset({_OWNER, "pg_signal_backend"}),
    _MOVER: frozenset(),
}
_TENANT_SCHEMA: Final = re.compile(rf"{SHARED_SCHEMA}|{DEDICATED_SCHEMA}|t_[0-9a-f]{{32}}")
#: Partitioned by day for retention alone; it is only ever looked up by its whole key.
_NEVER_READ_BY_TIME: Final = "inbox"
_RELAY_MARKS: Final = ("published_at", "published_log", "published_partition", "published_offset")

#: What the libraries' own tables grant, beside LIBRARY_GRANTS: in each service's schema, and in schema tlsy.
_OF_RELAY_IN_SERVICE: Final[Mapping[str, tuple[str, ...]]] = {
    "outbox": ("select", *(f"update({column})" for column in _RELAY_MARKS)),
    "relay_state": ("select", "insert", "update"),
}
_OF_SERVICE_IN_TLSY: Final[Mapping[str, tuple[str, ...]]] = {
    "fence": ("select",),
    "topic_log": ("select", "update(incarnation)", "update(changed_at)"),
    "consumer_group": ("select", "insert", "update"),
    "consumer_watermark": ("select", "insert", "update"),
    "partition_assignment": ("select", "insert", "update"),
}
_OF_RELAY_IN_TLSY: Final[Mapping[str, tuple[str, ...]]] = {
    "topic_log": ("select", "insert", "update"),
    "topic_end": ("select", "insert", "update"),
    "consumer_group": ("select",),
    "consumer_watermark": ("select", "delete"),
}
_ENTRANCES: Final = frozenset({"enter", "enter_platform"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: a stable code, the object's qualified name, what is wrong, what to do."""

    code: Code
    object: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Catalogue:
    """What was read, one row per object."""

    control: bool
    tables: Sequence[asyncpg.Record]
    policies: Sequence[asyncpg.Record]
    keys: Sequence[asyncpg.Record]
    grants: Sequence[asyncpg.Record]
    roles: Sequence[asyncpg.Record]
    owners: Sequence[asyncpg.Record]
    settings: Sequence[asyncpg.Record]
    references: Sequence[asyncpg.Record]
    definers: Sequence[asyncpg.Record]
    functions: Sequence[asyncpg.Record]
    triggers: Sequence[asyncpg.Record]
    publications: Sequence[asyncpg.Record]


async def lint(connection: Connection, services: Sequence[ServiceMigrations]) -> tuple[Finding, ...]:
    """Every finding in one database, sorted; none if it is as it must be.

    `services`: everything that is installed, because what they declare is what may be granted.
    """
    catalogue = _Catalogue(
        control=await connection.fetchval("select to_regprocedure('tlsy.enter_platform()') is not null"),
        tables=await connection.fetch(sql.text("lint/tables.sql")),
        policies=await connection.fetch(sql.text("lint/policies.sql")),
        keys=await connection.fetch(sql.text("lint/keys.sql")),
        grants=await connection.fetch(sql.text("lint/grants.sql")),
        roles=await connection.fetch(sql.text("lint/roles.sql")),
        owners=await connection.fetch(sql.text("lint/owners.sql")),
        settings=await connection.fetch(sql.text("lint/settings.sql")),
        references=await connection.fetch(sql.text("lint/references.sql")),
        definers=await connection.fetch(sql.text("lint/definers.sql")),
        functions=await connection.fetch(sql.text("lint/functions.sql")),
        triggers=await connection.fetch(sql.text("lint/triggers.sql")),
        publications=await connection.fetch(sql.text("lint/publications.sql")),
    )
    findings = [
        *_tables(catalogue),
        *_grants(catalogue, services),
        *_roles(catalogue),
        *_owners(catalogue),
        *_settings(catalogue),
        *_references(catalogue),
        *_definers(catalogue),
        *_functions(catalogue),
        *_triggers(catalogue),
        *_publications(catalogue),
    ]
    return tuple(sorted(findings, key=lambda finding: (finding.object, finding.code, finding.message)))


def _tables(catalogue: _Catalogue) -> Iterator[Finding]:
    for table in catalogue.tables:
        name = f"{table['schema_name']}.{table['table_name']}"
        if table["kind"] != "table":
            if table["has_tenant"] or _TENANT_SCHEMA.fullmatch(table["schema_name"]):
                message = f"a {table['kind']} has no row-level security, nor are its rows erased"
                yield Finding("RLS_OFF", name, message, f"drop {table['kind']} {name}")
            continue
        if table["owner"] != _OWNER:
            yield Finding(
                "OWNER_WRONG", name, f"owned by {table['owner']}", f"alter table {name} owner to {_OWNER}"
            )
        if not table["has_tenant"]:
            # What is protected has tenants' rows, wherever it is, which without the column nobody erases.
            if table["enabled"] or _TENANT_SCHEMA.fullmatch(table["schema_name"]):
                yield Finding("TENANT_ID_MISSING", name, "no tenant_id", "add tenant_id, first in the key")
            continue
        if not table["enabled"]:
            yield Finding(
                "RLS_OFF",
                name,
                "row-level security is off",
                f"alter table {name} enable row level security, force row level security",
            )
        elif not table["forced"]:
            yield Finding(
                "RLS_NOT_FORCED",
                name,
                "row-level security does not hold its owner",
                f"alter table {name} force row level security",
            )
        yield from _policies(catalogue, table, name)
        yield from _keys(catalogue, table, name)
        if table["bound_types"]:
            yield Finding(
                "COLUMN_TYPE_BOUND",
                name,
                f"not of PostgreSQL's own base types: {', '.join(table['bound_types'])}",
                "use a base type with a CHECK: cached statements do not survive a change of search_path",
            )


def _policies(catalogue: _Catalogue, table: asyncpg.Record, name: str) -> Iterator[Finding]:
    present = {
        (row["name"], row["permissive"], row["command"]): row
        for row in catalogue.policies
        if row["table_id"] == table["id"]
    }
    # By whichever policy is left: the shape is told in each of them.
    platform = catalogue.control and any("'app.scope'" in row["using_text"] for row in present.values())
    expected = _expected(table, name, platform=platform)
    for key, row in present.items():
        texts, drop = (row["using_text"], row["check_text"]), f'drop policy "{key[0]}" on {name}'
        if key not in expected:
            yield Finding("POLICY_UNKNOWN", name, f"policy {key[0]} is of no known shape", drop)
            continue
        wanted, role = expected[key]
        if (texts, list(row["roles"])) == (wanted, [role]):
            continue
        again = f"{drop}; {_made(name, key, wanted, role)}"
        raw = any("current_setting" in text and "NULLIF" not in text for text in texts)
        if raw and "NULLIF" in wanted[0]:
            message = f"policy {key[0]} compares a setting without nullif: it raises where none is set"
            yield Finding("NULLIF_MISSING", name, message, again)
        else:
            yield Finding("POLICY_UNKNOWN", name, f"policy {key[0]} is of no known shape", again)
    for key in expected.keys() - present.keys():
        yield Finding("POLICY_MISSING", name, f"no policy {key[0]}", _made(name, key, *expected[key]))


def _expected(
    table: asyncpg.Record, name: str, *, platform: bool
) -> dict[policy_shapes.Key, tuple[policy_shapes.Texts, str]]:
    """What policies a table must have, and for whom."""
    if table["is_partition"]:  # read directly it shows nothing: no policy, no grant
        return {}
    if name == "tlsy.fence":
        own = policy_shapes.FENCE_POLICY
        return {("tenant", True, policy_shapes.ALL): ((own, own), "public")}
    shape = policy_shapes.shape(platform=platform)
    if table["table_name"] != "outbox":
        return {key: (texts, "public") for key, texts in shape.items()}
    fenced = f"tlsy_{table['schema_name']}"
    return {
        **{key: (texts, "public" if key[1] else fenced) for key, texts in shape.items()},
        **{key: (texts, RELAY) for key, texts in policy_shapes.OF_RELAY.items()},
    }


def _made(name: str, key: policy_shapes.Key, texts: policy_shapes.Texts, role: str) -> str:
    policy, permissive, command = key
    using, check = texts
    return (
        f"create policy {policy} on {name} as {'permissive' if permissive else 'restrictive'}"
        f" for {policy_shapes.COMMANDS[command]} to {role} using ({using})"
        + (f" with check ({check})" if check else "")
    )


def _keys(catalogue: _Catalogue, table: asyncpg.Record, name: str) -> Iterator[Finding]:
    keys = [row for row in catalogue.keys if row["table_id"] == table["id"]]
    if not table["is_partition"] and not any(row["is_primary"] for row in keys):
        yield Finding("KEY_NOT_LED_BY_TENANT", name, "no primary key", "add primary key (tenant_id, …)")
    for row in keys:
        # In the control database the catalogue's slugs are unique over all.
        judged = row["is_primary"] or (row["is_unique"] and not catalogue.control)
        if judged and row["columns"][0] != "tenant_id":
            yield Finding(
                "KEY_NOT_LED_BY_TENANT",
                name,
                f"unique or excluding index {row['name']} is led by {row['columns'][0] or 'an expression'}",
                "put tenant_id first: else one tenant's rows collide with another's",
            )
    column = table["time_column"]
    if column is None or table["is_partition"] or table["table_name"] == _NEVER_READ_BY_TIME:
        return
    if not any(row["is_ordered"] and row["columns"][:2] == ["tenant_id", column] for row in keys):
        yield Finding(
            "TIME_INDEX_MISSING", name, "cannot be read by tenant and time", f"index (tenant_id, {column})"
        )


def _grants(catalogue: _Catalogue, services: Sequence[ServiceMigrations]) -> Iterator[Finding]:
    allowed = _allowed_grants(services, control=catalogue.control)
    roles = {service.role for service in services}
    for row in catalogue.grants:
        grantee, privilege = row["grantee"], row["privilege"]
        schema, name = row["schema_name"], row["name"]
        of, target = "", f"{schema}.{name}"
        match row["kind"]:
            case "schema":
                of, target = "schema ", name
                fine = privilege == "usage" and grantee != "public"
            case "function":
                of = "routine "
                fine = schema == "tlsy" and name in _ENTRANCES and grantee in roles
            case "database":
                of, target = "database ", name
                fine = privilege == "connect" and grantee in {MIGRATOR, _MOVER, RELAY, *roles}
            case "parameter" | "foreign server" | "foreign data wrapper" as kind:
                of, target = f"{kind} ", name
                fine = False
            case "default":
                of, target = "what it will make as ", f"{name} in {schema or 'any schema'}"
                fine = False
            case _:
                plane = "*" if _TENANT_SCHEMA.fullmatch(schema) else schema
                # No view, nor anything else that has no row-level security of its own.
                fine = row["is_table"] and not row["is_partition"]
                fine = fine and (plane, name, grantee, privilege) in allowed
        if not fine:
            code: Code = "PARTITION_GRANTED" if row["is_partition"] else "GRANT_TOO_MANY"
            yield Finding(
                code,
                target,
                f"{grantee} has {privilege}",
                f"revoke {privilege} on {of}{target} from {grantee}",
            )
        elif row["is_grantable"]:
            yield Finding(
                "GRANT_TOO_MANY",
                target,
                f"{grantee} may hand {privilege} on",
                f"revoke grant option for {privilege} on {of}{target} from {grantee} cascade",
            )


def _allowed_grants(
    services: Iterable[ServiceMigrations], *, control: bool
) -> frozenset[tuple[str, str, str, str]]:
    """(schema, table, role, privilege); schema "*" stands for every schema with tenants' tables."""
    tables: list[tuple[str, str, str, Sequence[str]]] = []
    for service in services:
        package, role = service.package, service.role
        owned = service.control_grants if control else service.tenant_grants
        tables += [(package if control else "*", table, role, what) for table, what in owned.items()]
        tables += [(package, table, role, what) for table, what in LIBRARY_GRANTS.items()]
        tables += [(package, table, RELAY, what) for table, what in _OF_RELAY_IN_SERVICE.items()]
        tables += [("tlsy", table, role, what) for table, what in _OF_SERVICE_IN_TLSY.items()]
    tables += [("tlsy", table, RELAY, what) for table, what in _OF_RELAY_IN_TLSY.items()]
    return frozenset(
        (schema, table, role, privilege) for schema, table, role, what in tables for privilege in what
    )


def _roles(catalogue: _Catalogue) -> Iterator[Finding]:
    for row in catalogue.roles:
        role = row["role"]
        if row["is_superuser"]:
            yield Finding("ROLE_BYPASSES", role, "is a superuser", f"alter role {role} nosuperuser")
        if row["bypasses"] and role not in _MAY_BYPASS:
            yield Finding("ROLE_BYPASSES", role, "has BYPASSRLS", f"alter role {role} nobypassrls")
        for group in row["member_of"]:
            if group not in _MAY_BYPASS.get(role, ()):
                message = f"is a member of {group}"
                yield Finding("ROLE_BYPASSES", role, message, f"revoke {group} from {role}")
        for attribute in row["beyond"]:
            yield Finding("ROLE_BYPASSES", role, f"has {attribute}", f"alter role {role} no{attribute}")
        for outsider in row["outsiders"]:
            message = f"{outsider} is a member of it"
            yield Finding("ROLE_BYPASSES", role, message, f"revoke {role} from {outsider}")


def _owners(catalogue: _Catalogue) -> Iterator[Finding]:
    """An owner may change what it owns, whatever it was granted."""
    for row in catalogue.owners:
        yield Finding("OWNER_WRONG", row["name"], f"owned by {row['owner']}", f"give it to {_OWNER}")


def _settings(catalogue: _Catalogue) -> Iterator[Finding]:
    for row in catalogue.settings:
        target = " in ".join(f"{kind} {row[kind]}" for kind in ("role", "database") if row[kind]) or "system"
        message = f"sessions begin with {row['name']}, as if something had been entered"
        yield Finding("SETTING_ENTERS", target, message, f"alter {target} reset {row['name']}")


def _references(catalogue: _Catalogue) -> Iterator[Finding]:
    for row in catalogue.references:
        yield Finding(
            "REFERENCE_ACROSS_TENANTS",
            f"{row['schema_name']}.{row['table_name']}",
            f"foreign key {row['name']} does not tie tenant_id to tenant_id",
            "reference (tenant_id, …) by (tenant_id, …): else it tells whether another tenant has a row",
        )


def _definers(catalogue: _Catalogue) -> Iterator[Finding]:
    for row in catalogue.definers:
        name, alter = f"{row['schema_name']}.{row['name']}", f"alter routine {row['signature']}"
        if row["is_definer"]:
            yield Finding("SECURITY_DEFINER", name, "runs as its owner", f"{alter} security invoker")
        if row["is_leakproof"]:
            message = "is given the rows that row-level security does not show"
            yield Finding("LEAKPROOF", name, message, f"{alter} not leakproof")


def _functions(catalogue: _Catalogue) -> Iterator[Finding]:
    """Each as it was shipped, once: one of the same name with other arguments is another."""
    shipped = Counter(library_functions(control=catalogue.control).items())
    present = Counter((row["name"], (row["declared"], row["body"])) for row in catalogue.functions)
    for name in sorted({name for name, _ in (shipped - present) + (present - shipped)}):
        yield Finding(
            "FUNCTION_CHANGED",
            f"tlsy.{name}",
            "does not do what this version's does",
            "migrate the database, or make the function again from this version's text",
        )


def _triggers(catalogue: _Catalogue) -> Iterator[Finding]:
    for row in catalogue.triggers:
        what, table = f'{row["kind"]} "{row["name"]}"', row["table_name"]
        message = f"{what} does more than the statement that somebody sends"
        drop = f"drop {what}" if table is None else f"drop {what} on {table}"
        yield Finding("ACTS_UNASKED", table or row["name"], message, drop)


def _publications(catalogue: _Catalogue) -> Iterator[Finding]:
    for row in catalogue.publications:
        message = "whoever subscribes to it gets rows of tenants, around row-level security"
        yield Finding("PUBLISHED", row["name"], message, f'drop publication "{row["name"]}"')
