"""From Alembic revisions to SQL text, and from that to databases.

Services author Alembic revisions in two branches, `control/versions` (their schema of the control database)
and `tenant/versions` (every tenant's schema). Nothing of Alembic runs against a database: revisions are
rendered to text once, and the text is applied by simple query, because asyncpg prepares one statement at a
time. Each revision and its version row commit together, so an interrupted migration goes on where it stopped.
What the libraries need comes first, by the same mechanism.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, Literal

import asyncpg

from tlsy.tenancy import sql
from tlsy.tenancy.context import DEDICATED_SCHEMA, SHARED_SCHEMA
from tlsy.tenancy.database import transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from tlsy.tenancy.database import Connection

Privilege = Literal["select", "insert", "update", "delete"]
BranchName = Literal["control", "tenant"]

LIBRARY: Final = "library"
_LIBRARY_SCHEMA: Final = "tlsy"
_SCHEMA_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_OF_ONE_TENANT: Final = re.compile(r"t_[0-9a-f]{32}")
_ENTRY_POINTS: Final = "tlsy.migrations"
_DATABASE_TEXTS: Final = (
    "database/0001_context.sql",
    "database/0002_partitions.sql",
    "database/0003_erasure.sql",
)
_CONTROL_TEXTS: Final = ("control/0001_platform.sql", "eventlog/control.sql")
_FUNCTION: Final = re.compile(
    r"create (?:or replace )?(?:function|procedure) tlsy\.(\w+)\(.*?\slanguage (.*?)\sas \$\$(.*?)\$\$",
    re.DOTALL,
)
#: One text of many statements, each under the server's own limit; for a server that says nothing any more.
TEXT_TIMEOUT_S: Final = 86_400.0
#: What MigrationFailed calls the last step of a component.
GRANTS: Final = "grants"
#: What revisions of the libraries grant a service's role in its own schema.
LIBRARY_GRANTS: Final[Mapping[str, Sequence[Privilege]]] = {
    "outbox": ("select", "insert"),
    "inbox": ("select", "insert"),
    "consumer_fence": ("select", "insert", "update"),
    "idempotency": ("select", "insert", "update"),
    "parked_record": ("select", "insert", "delete"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceMigrations:
    """What one service has in databases; each service exposes one as `tlsy.<package>.migrations:MIGRATIONS`.

    Attributes:
        service: its name, e.g. "rules-engine".
        package: its package, e.g. "rules_engine": the name of its schema and the tail of its role.
        root: the folder with `control/versions` and `tenant/versions`; an absent branch has no tables.
        tenant_grants: table of the tenant branch -> what the service's role may do with it. The runner grants
            exactly this and revokes what its role has beyond; revisions contain no GRANT. A change of it
            comes with a revision (an empty one will do): only revisions say that a tenant is behind.
        control_grants: the same for the control branch.
        reference: SQL text that fills a new tenant's tables, or "". It finds the tenant in the setting
            app.current_tenant and must do nothing the second time.
    """

    service: str
    package: str
    root: Path
    tenant_grants: Mapping[str, Sequence[Privilege]] = field(default_factory=dict)
    control_grants: Mapping[str, Sequence[Privilege]] = field(default_factory=dict)
    reference: str = ""

    @property
    def role(self) -> str:
        """The service's login role."""
        return f"tlsy_{self.package}"


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of one component, as SQL text that runs with search_path set to its schema."""

    id: str
    sql: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """Everything of one owner in one schema: its revisions, oldest first, then its grants.

    `name` and `schema` are the key of its version row.
    """

    name: str
    schema: str
    revisions: tuple[Revision, ...]
    grants: str


class MigrationFailed(Exception):  # noqa: N818 - it names what happened, like the others
    """A revision, or GRANTS, could not be applied; those before it are. `sqlstate` is PostgreSQL's."""

    def __init__(self, component: Component, revision: str, error: asyncpg.PostgresError) -> None:
        super().__init__(f"{component.name} {revision} in schema {component.schema}: {error}")
        self.component = component.name
        self.schema = component.schema
        self.revision = revision
        self.sqlstate = error.sqlstate


@dataclass(frozen=True, slots=True)
class Applied:
    """One revision that was applied, and the rows that its backfills touched, by table."""

    component: str
    schema: str
    revision: str
    backfilled: Mapping[str, int]


def installed() -> tuple[ServiceMigrations, ...]:
    """The migrations of every installed service, sorted by service."""
    found: list[ServiceMigrations] = [point.load() for point in entry_points(group=_ENTRY_POINTS)]
    return tuple(sorted(found, key=lambda migrations: migrations.service))


def renderer() -> Callable[[ServiceMigrations, BranchName], tuple[Revision, ...]]:
    """What renders a branch; loaded at the first call, which for half a second is no event loop's to make."""
    # Alembic and SQLAlchemy are as much as all else that a service loads, and most never migrate anything.
    from tlsy.tenancy.rendering import render  # noqa: PLC0415 - see above

    return render


class Schemas:
    """What belongs into which database and schema, for a given set of services.

    The first question renders all their revisions.
    """

    def __init__(self, services: Sequence[ServiceMigrations]) -> None:
        self.services = tuple(services)

    @cached_property
    def _tenant(self) -> Mapping[str, tuple[Revision, ...]]:
        return self._rendered("tenant")

    @cached_property
    def _control(self) -> Mapping[str, tuple[Revision, ...]]:
        return self._rendered("control")

    def _rendered(self, branch: BranchName) -> Mapping[str, tuple[Revision, ...]]:
        render = renderer()
        return {service.service: render(service, branch) for service in self.services}

    def control(self) -> tuple[Component, ...]:
        """The control database."""
        return (
            self._database(),
            Component(
                name="control",
                schema=_LIBRARY_SCHEMA,
                revisions=_texts(*_CONTROL_TEXTS),
                grants="".join(
                    f"grant execute on function tlsy.enter_platform() to {s.role};\n" for s in self.services
                ),
            ),
            *(
                self._library(s, "eventlog/control_service.sql", "service/0003_protect_platform.sql")
                for s in self.services
            ),
            *(_owned(s, s.package, self._control[s.service], s.control_grants) for s in self.services),
        )

    def common(self) -> tuple[Component, ...]:
        """A database that SHARED and SCHEMA tenants have in common."""
        return (*self._placement_database(), *self.tenant(SHARED_SCHEMA))

    def dedicated(self) -> tuple[Component, ...]:
        """The database of one DEDICATED tenant."""
        return (*self._placement_database(), *self.tenant(DEDICATED_SCHEMA))

    def tenant(self, schema: str) -> tuple[Component, ...]:
        """One schema with tenants' tables, of all services."""
        return tuple(_owned(s, schema, self._tenant[s.service], s.tenant_grants) for s in self.services)

    def _placement_database(self) -> tuple[Component, ...]:
        return (
            self._database(),
            *(self._library(s, "service/0003_protect_tenant.sql") for s in self.services),
        )

    def _database(self) -> Component:
        return Component(
            name=LIBRARY,
            schema=_LIBRARY_SCHEMA,
            revisions=_texts(*_DATABASE_TEXTS),
            grants="".join(
                f"grant usage on schema tlsy to {s.role};\n"
                f"grant execute on procedure tlsy.enter(uuid, bigint, boolean) to {s.role};\n"
                f"grant select on tlsy.fence to {s.role};\n"
                for s in self.services
            ),
        )

    def _library(self, service: ServiceMigrations, *more: str) -> Component:
        paths = (
            "service/0001_idempotency.sql",
            "eventlog/placement.sql",
            *more,
            "eventlog/0004_name_causes.sql",
        )
        return Component(
            name=LIBRARY,
            schema=service.package,
            revisions=_texts(*paths, package=service.package),
            grants=f"grant usage on schema {service.package} to {service.role};\n",
        )


def library_functions(*, control: bool) -> dict[str, tuple[str, str]]:
    """Each function that the libraries have in schema tlsy, by name; in the control database, more.

    To what follows LANGUAGE, without quotes and in small letters, and to its body.
    """
    paths = (*_DATABASE_TEXTS, *(_CONTROL_TEXTS if control else ()))
    texts = "".join(revision.sql for revision in _texts(*paths))
    return {
        name: (declared.replace("'", "").lower(), body) for name, declared, body in _FUNCTION.findall(texts)
    }


def _texts(*paths: str, package: str = "") -> tuple[Revision, ...]:
    return tuple(
        Revision(path.removesuffix(".sql").rpartition("/")[2], sql.text(path, package)) for path in paths
    )


def _owned(
    service: ServiceMigrations,
    schema: str,
    revisions: tuple[Revision, ...],
    grants: Mapping[str, Sequence[Privilege]],
) -> Component:
    kept = [
        f"{table} {privilege}"
        for table, allowed in {**LIBRARY_GRANTS, **grants}.items()
        for privilege in allowed
    ]
    lines = [f"grant usage on schema {schema} to {service.role};\n"]
    lines += [
        f"grant {', '.join(allowed)} on {table} to {service.role};\n" for table, allowed in grants.items()
    ]
    lines.append(f"select tlsy.revoke_beyond('{schema}', '{service.role}', '{{{','.join(kept)}}}');\n")
    return Component(name=service.service, schema=schema, revisions=revisions, grants="".join(lines))


def create_schemas(schemas: Iterable[str]) -> str:
    """SQL that makes these schemas, if they are not there, as property of tlsy_owner."""
    lines = []
    for schema in schemas:
        if not _SCHEMA_NAME.fullmatch(schema):
            raise ValueError(f"not a schema name: {schema!r}")
        lines.append(f"create schema if not exists {schema} authorization tlsy_owner;\n")
    return "".join(lines)


def batch(components: Sequence[Component]) -> str:
    """Everything of these components as one text for schemas that are empty: the template of a placement.

    To be run inside a transaction; it sets search_path and role of that transaction.
    """
    schemas = dict.fromkeys(component.schema for component in components)
    parts = [create_schemas(schemas), "set local role tlsy_owner;\n"]
    for component in components:
        parts.append(f"set local search_path = {component.schema};\n")
        parts += [f"{revision.sql}\n;\n" for revision in component.revisions]
        parts.append(component.grants)
        if component.revisions:
            parts.append(_version_row(component, component.revisions[-1]))
    return "".join(parts)


def _version_row(component: Component, revision: Revision) -> str:
    return f"select tlsy.set_version('{component.name}', '{component.schema}', '{revision.id}');\n"


async def versions(
    connection: Connection, schemas: Iterable[str] | None = None
) -> dict[tuple[str, str], str]:
    """The revision of each (component, schema) of a database; empty where nothing was migrated yet.

    `schemas`: of these alone; there may be thousands.
    """
    if await connection.fetchval("select to_regclass('tlsy.version') is null"):
        return {}
    rows = await connection.fetch(
        "select component, schema_name, revision from tlsy.version "
        "where $1::text[] is null or schema_name = any ($1)",
        None if schemas is None else list(schemas),
    )
    return {(row["component"], row["schema_name"]): row["revision"] for row in rows}


def pending(component: Component, revision_id: str | None) -> tuple[Revision, ...]:
    """What a component lacks that is at `revision_id`. ValueError for a revision that it does not know."""
    if revision_id is None:
        return component.revisions
    ids = [revision.id for revision in component.revisions]
    if revision_id not in ids:
        raise ValueError(
            f"{component.name} in {component.schema} is at {revision_id}, which is not known here"
        )
    return component.revisions[ids.index(revision_id) + 1 :]


async def migrate(
    connection: Connection, components: Sequence[Component], *, lock_timeout_s: float = 5.0
) -> tuple[Applied, ...]:
    """Bring a database's components to their heads, as tlsy_migrator; answers what it did.

    One transaction per revision, with its version row; two runners in one database take turns, revision by
    revision. A tenant's own schema must be there: a runner that comes late does not bring an erased one back.
    Raises MigrationFailed at the first revision that fails; run again to go on from there.
    """
    schemas = dict.fromkeys(c.schema for c in components if not _OF_ONE_TENANT.fullmatch(c.schema))
    if schemas:
        async with _turn(connection):
            await connection.execute(create_schemas(schemas))
    current = await versions(connection, {component.schema for component in components})
    applied: list[Applied] = []
    for component in components:
        for revision in pending(component, current.get((component.name, component.schema))):
            async with _turn(connection):
                now = await versions(connection, [component.schema])
                if revision in pending(
                    component, now.get((component.name, component.schema))
                ):  # else another runner has applied it meanwhile
                    text = f"{revision.sql}\n;\n{_version_row(component, revision)}"
                    backfilled = await _apply(connection, component, revision.id, text, lock_timeout_s)
                    applied.append(Applied(component.name, component.schema, revision.id, backfilled))
        async with _turn(connection):
            await _apply(connection, component, GRANTS, component.grants, lock_timeout_s)
    return tuple(applied)


@asynccontextmanager
async def _turn(connection: Connection) -> AsyncIterator[None]:
    """A transaction while which no other runner is in one, under the session's lock_timeout.

    The lock ends with the transaction, however that ends.
    """
    async with transaction(connection):
        await connection.execute("select pg_advisory_xact_lock(hashtext('tlsy.migrate'), 0)")
        yield


async def _apply(
    connection: Connection, component: Component, step: str, text: str, lock_timeout_s: float
) -> Mapping[str, int]:
    """Run a step of a component; answers the rows that its backfills touched, by table."""
    backfilled: dict[str, int] = {}

    def notice(_: object, message: asyncpg.PostgresLogMessage) -> None:
        if message.sqlstate == "TL100":
            table, _, rows = (message.detail or "").rpartition(" ")
            backfilled[table] = backfilled.get(table, 0) + int(rows)

    connection.add_log_listener(notice)
    try:
        await connection.execute(
            f"set local lock_timeout = {int(lock_timeout_s * 1000)}; set local role tlsy_owner;\n"
            f"set local search_path = {component.schema};\n{text}",
            timeout=TEXT_TIMEOUT_S,
        )
    except asyncpg.PostgresError as error:
        raise MigrationFailed(component, step, error) from error
    finally:
        connection.remove_log_listener(notice)
    return backfilled
