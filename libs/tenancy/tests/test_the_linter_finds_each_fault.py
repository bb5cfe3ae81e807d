"""Each mutant takes one guard away; the linter must name it."""

from __future__ import annotations

import pytest

from tlsy.tenancy.context import IsolationMode
from tlsy.tenancy.lint import lint
from tlsy.tenancy.migrations import library_functions

TENANT_POLICY = "tenant_id = (select nullif(current_setting('app.current_tenant', true), ''))::uuid"
ON_PARTITION = (
    "do $$ begin execute format('{}', to_char(now() at time zone 'utc', '\"readings_p\"YYYYMMDD')); end $$"
)
PLATFORM = "(select nullif(current_setting('app.scope', true), '')) = 'platform'"
OTHER_KEY = "primary key (tenant_id, reading_id, ts)"
RAW = "(select current_setting('app.current_tenant', true))::uuid"

UNASKED = "create function public.unasked() returns {} language plpgsql as 'begin end'; "
TRIGGER = (
    f"{UNASKED.format('trigger')}"
    "create trigger unasked before insert on shared.readings for each row execute function public.unasked()"
)
TRIGGER_OF_PARTITION = (
    "create trigger unasked before update on shared.%I for each row "
    "execute function suppress_redundant_updates_trigger()"
)
EVENT_TRIGGER = (
    f"{UNASKED.format('event_trigger')}"
    "create event trigger unasked on login execute function public.unasked()"
)

MUTANTS = {
    "row-level security off": ("RLS_OFF", "alter table shared.orders disable row level security"),
    "row-level security not forced": (
        "RLS_NOT_FORCED",
        "alter table shared.orders no force row level security",
    ),
    "row-level security off on a partition": (
        "RLS_OFF",
        ON_PARTITION.format("alter table shared.%I disable row level security"),
    ),
    "the tenant policy gone": ("POLICY_MISSING", "drop policy tenant on shared.orders"),
    "the fence policy gone": ("POLICY_MISSING", "drop policy fence on shared.orders"),
    "the fence policy of DELETE gone": ("POLICY_MISSING", "drop policy fence_delete on shared.orders"),
    "a policy that shows everything": ("POLICY_UNKNOWN", "create policy more on shared.orders using (true)"),
    "a policy on a partition": (
        "POLICY_UNKNOWN",
        ON_PARTITION.format("create policy p on shared.%I using (true)"),
    ),
    "the relay's exception on another table": (
        "POLICY_UNKNOWN",
        "create policy relay_reads on shared.orders for select to tlsy_relay using (true)",
    ),
    "the platform's shape outside the control database": (
        "POLICY_UNKNOWN",
        f"alter policy tenant on shared.orders using ({TENANT_POLICY} or {PLATFORM})",
    ),
    "no nullif": (
        "NULLIF_MISSING",
        f"alter policy tenant on shared.orders using (tenant_id = {RAW})",
    ),
    "a table of tenants without tenant_id": ("TENANT_ID_MISSING", "create table shared.loose (id int)"),
    "a primary key led by something else": (
        "KEY_NOT_LED_BY_TENANT",
        "alter table shared.orders drop constraint orders_pkey, add primary key (order_id, tenant_id)",
    ),
    "a unique index over all tenants": (
        "KEY_NOT_LED_BY_TENANT",
        "create unique index on shared.orders (note)",
    ),
    "no index by time": (
        "TIME_INDEX_MISSING",
        f"alter table shared.readings drop constraint readings_pkey, add {OTHER_KEY}",
    ),
    "an index by time of some rows": (
        "TIME_INDEX_MISSING",
        (
            f"alter table shared.readings drop constraint readings_pkey, add {OTHER_KEY};"
            "create index on shared.readings (tenant_id, ts) where reading_id > 0"
        ),
    ),
    "an index by time that has no order": (
        "TIME_INDEX_MISSING",
        (
            f"alter table shared.readings drop constraint readings_pkey, add {OTHER_KEY};"
            "create index on shared.readings using brin (tenant_id, ts)"
        ),
    ),
    "an enum column": (
        "COLUMN_TYPE_BOUND",
        "create type shared.mood as enum ('good'); alter table shared.orders add mood shared.mood",
    ),
    "a column of many of an enum": (
        "COLUMN_TYPE_BOUND",
        "create type shared.mood as enum ('good'); alter table shared.orders add moods shared.mood[]",
    ),
    "a range of its own": (
        "COLUMN_TYPE_BOUND",
        "create type shared.span as range (subtype = int8); alter table shared.orders add span shared.span",
    ),
    "a grant on a partition": (
        "PARTITION_GRANTED",
        ON_PARTITION.format("grant select on shared.%I to tlsy_web_shop"),
    ),
    "a privilege that was not declared": (
        "GRANT_TOO_MANY",
        "grant truncate on shared.orders to tlsy_web_shop",
    ),
    "a grant to everybody": ("GRANT_TOO_MANY", "grant select on shared.orders to public"),
    "a grant on one column": ("GRANT_TOO_MANY", "grant update (data) on web_shop.outbox to tlsy_relay"),
    "a right to create in a schema": ("GRANT_TOO_MANY", "grant create on schema shared to tlsy_web_shop"),
    "a function of ours for everybody": (
        "GRANT_TOO_MANY",
        "grant execute on function tlsy.remove_fence to public",
    ),
    "a database that everybody may enter": (
        "GRANT_TOO_MANY",
        "do $$ begin execute format('grant connect on database %I to public', current_database()); end $$",
    ),
    "a service that may make temporary tables": (
        "GRANT_TOO_MANY",
        (
            "do $$ begin "
            "execute format('grant temporary on database %I to tlsy_web_shop', current_database()); end $$"
        ),
    ),
    "a grant on a table in schema public": (
        "GRANT_TOO_MANY",
        (
            "create table public.x (id int); alter table public.x owner to tlsy_owner; "
            "grant select on public.x to tlsy_web_shop"
        ),
    ),
    "a right to create in schema public": (
        "GRANT_TOO_MANY",
        "grant create on schema public to tlsy_web_shop",
    ),
    "a grant on whatever is made later": (
        "GRANT_TOO_MANY",
        "alter default privileges for role tlsy_owner in schema shared grant select on tables to tlsy_relay",
    ),
    "the relay's exception for everything": (
        "POLICY_UNKNOWN",
        (
            "drop policy relay_reads on web_shop.outbox; "
            "create policy relay_reads on web_shop.outbox for all to tlsy_relay using (true)"
        ),
    ),
    "an entrance that checks nothing": (
        "FUNCTION_CHANGED",
        (
            "create or replace procedure tlsy.enter(tenant uuid, epoch bigint, write boolean) "
            "language sql as ''"
        ),
    ),
    "another entrance of the same name": (
        "FUNCTION_CHANGED",
        "create function tlsy.enter(tenant uuid) returns void language sql as ''",
    ),
    "a function that is gone": ("FUNCTION_CHANGED", "drop function tlsy.remove_fence"),
    "a function that is skipped where a value is null": (
        "FUNCTION_CHANGED",
        "alter function tlsy.set_fence strict",
    ),
    "an entrance with a setting of its own": (
        "FUNCTION_CHANGED",
        "alter procedure tlsy.enter set search_path = shared",
    ),
    "a setting that a function has lost": ("FUNCTION_CHANGED", "alter function tlsy.partition_end reset all"),
    "another value of a function's setting": (
        "FUNCTION_CHANGED",
        "alter function tlsy.occupied set enable_seqscan = on",
    ),
    "a function whose answer is kept": ("FUNCTION_CHANGED", "alter function tlsy.unpublished immutable"),
    "another owner": ("OWNER_WRONG", "alter table shared.orders owner to tlsy_migrator"),
    "a function that runs as its owner": (
        "SECURITY_DEFINER",
        "alter procedure tlsy.enter security definer",
    ),
    "a view in the place of a table": (
        "GRANT_TOO_MANY",
        (
            "alter table shared.orders rename to kept; revoke all on shared.kept from tlsy_web_shop; "
            "create view shared.orders as select * from shared.kept; "
            "grant select on shared.orders to tlsy_web_shop"
        ),
    ),
    "a grant on a foreign table": (
        "GRANT_TOO_MANY",
        (
            "create foreign data wrapper w; create server s foreign data wrapper w; "
            "create foreign table shared.far (tenant_id uuid) server s; "
            "grant select on shared.far to tlsy_web_shop"
        ),
    ),
    "a grant on what PostgreSQL knows of all rows": (
        "GRANT_TOO_MANY",
        "grant select on pg_catalog.pg_statistic to tlsy_web_shop",
    ),
    "a grant on a function that reads files": (
        "GRANT_TOO_MANY",
        "grant execute on function pg_catalog.pg_read_file(text) to tlsy_web_shop",
    ),
    "a unique index of a partition alone": (
        "KEY_NOT_LED_BY_TENANT",
        ON_PARTITION.format("create unique index on shared.%I (reading_id)"),
    ),
    "an exclusion over all tenants": (
        "KEY_NOT_LED_BY_TENANT",
        "alter table shared.orders add exclude using btree (note with =)",
    ),
    "an exclusion of other tenants' rows": (
        "KEY_NOT_LED_BY_TENANT",
        "create extension btree_gist; alter table shared.orders add exclude using gist (tenant_id with <>)",
    ),
    "a library's table whose tenant_id has another name": (
        "TENANT_ID_MISSING",
        "alter table web_shop.idempotency rename tenant_id to whose",
    ),
    "a rule that does something else": (
        "ACTS_UNASKED",
        "create rule r as on insert to shared.orders do instead nothing",
    ),
    "a trigger": ("ACTS_UNASKED", TRIGGER),
    "a trigger of one partition": ("ACTS_UNASKED", ON_PARTITION.format(TRIGGER_OF_PARTITION)),
    "a trigger of the whole database": ("ACTS_UNASKED", EVENT_TRIGGER),
    "a publication of tenants' rows": ("PUBLISHED", "create publication p for table shared.orders"),
    "a publication of a whole schema": ("PUBLISHED", "create publication p for tables in schema shared"),
    "a publication of a library's table": ("PUBLISHED", "create publication p for table web_shop.inbox"),
    "a server that a service may reach": (
        "GRANT_TOO_MANY",
        (
            "create foreign data wrapper w; create server s foreign data wrapper w; "
            "grant usage on foreign server s to tlsy_web_shop"
        ),
    ),
    "servers that a service may add": (
        "GRANT_TOO_MANY",
        "create foreign data wrapper w; grant usage on foreign data wrapper w to tlsy_web_shop",
    ),
    "a reference to any tenant's row": (
        "REFERENCE_ACROSS_TENANTS",
        (
            "alter table shared.orders add whose uuid, "
            "add foreign key (whose, order_id) references shared.orders (tenant_id, order_id)"
        ),
    ),
    "a privilege that its role may hand on": (
        "GRANT_TOO_MANY",
        "grant select on shared.orders to tlsy_web_shop with grant option",
    ),
    "a function that row-level security trusts": (
        "LEAKPROOF",
        "create function shared.trusted(text) returns boolean language sql leakproof as 'select true'",
    ),
    "a unique index over all tenants of a library's table": (
        "KEY_NOT_LED_BY_TENANT",
        "create unique index on web_shop.idempotency (request_id)",
    ),
    "a copy of tenants' rows": (
        "RLS_OFF",
        "create materialized view shared.copied as select * from shared.orders",
    ),
    "a copy without their tenants": (
        "RLS_OFF",
        "create materialized view shared.copied as select note from shared.orders",
    ),
    "a schema of a service's own": ("OWNER_WRONG", "alter schema shared owner to tlsy_web_shop"),
    "an entrance of a service's own": ("OWNER_WRONG", "alter procedure tlsy.enter owner to tlsy_web_shop"),
    "a database whose sessions begin in a scope": (
        "SETTING_ENTERS",
        (
            "do $$ begin "
            "execute format('alter database %I set app.scope = platform', current_database()); end $$"
        ),
    ),
}


#: Done as it is advised, one after the other, each leaves nothing to find.
ADVISED = {
    "row-level security off": "alter table shared.orders disable row level security",
    "row-level security off on a partition": ON_PARTITION.format(
        "alter table shared.%I disable row level security"
    ),
    "row-level security off on the fence": "alter table tlsy.fence disable row level security",
    "row-level security not forced": "alter table shared.orders no force row level security",
    "a policy on a partition": ON_PARTITION.format("create policy p on shared.%I using (true)"),
    "a policy that shows everything": "create policy more on shared.orders using (true)",
    "a policy without nullif": f"alter policy tenant on shared.orders using (tenant_id = {RAW})",
    "no policies": (
        "drop policy tenant on shared.orders; drop policy fence on shared.orders;"
        "drop policy fence_delete on shared.orders"
    ),
    "a policy for one role": "alter policy fence on shared.orders to tlsy_web_shop",
    "a fence that shows everything": "alter policy tenant on tlsy.fence using (true)",
    "a fence by another setting": (
        "alter policy tenant on tlsy.fence using (tenant_id::text = current_setting('app.tenant', true))"
    ),
    "a fence without policy": "drop policy tenant on tlsy.fence",
    "one policy more on the fence": "create policy more on tlsy.fence using (true)",
    "a relay that reads nothing": "drop policy relay_reads on web_shop.outbox",
    "a relay that marks nothing": "drop policy relay_marks on web_shop.outbox",
    "a privilege that its role may hand on": (
        "grant select on shared.orders to tlsy_web_shop with grant option;"
        "set role tlsy_web_shop; grant select on shared.orders to tlsy_relay; reset role"
    ),
    "columns that a role may hand on": (
        "grant update (published_at) on web_shop.outbox to tlsy_relay with grant option"
    ),
    "a schema that a role may hand on": "grant usage on schema shared to tlsy_web_shop with grant option",
    "a function that row-level security trusts": (
        "create function shared.trusted(text) returns boolean language sql leakproof as 'select true'"
    ),
    "a copy of tenants' rows": "create materialized view shared.copied as select * from shared.orders",
    "tenants' rows that are elsewhere": (
        "create foreign data wrapper w; create server s foreign data wrapper w;"
        "create foreign table shared.far (tenant_id uuid) server s"
    ),
    "a rule that does something else": 'create rule "R" as on insert to shared.orders do instead nothing',
    "a trigger": TRIGGER,
    "a trigger of the whole database": EVENT_TRIGGER,
    "a publication of tenants' rows": 'create publication "P" for tables in schema shared',
    "a server that everybody may reach": (
        "create foreign data wrapper w; create server s foreign data wrapper w;"
        "grant usage on foreign server s to public; grant usage on foreign data wrapper w to tlsy_web_shop"
    ),
    "an outbox that is fenced for everybody": "alter policy fence on web_shop.outbox to public",
}
ADVISED_IN_CONTROL = {
    "a platform's table without its tenant policy": "drop policy tenant on web_shop.prices",
    "a platform's outbox without its fence": (
        "drop policy fence on web_shop.outbox; drop policy fence_delete on web_shop.outbox"
    ),
}


async def mended(statement, owner, service_migrations):
    """Codes of what was found after a statement, once everything was done that is advised."""
    await owner.execute(statement)
    findings = await lint(owner, service_migrations)
    for finding in findings:
        await owner.execute(finding.fix)
    assert await lint(owner, service_migrations) == ()
    return [finding.code for finding in findings]


@pytest.mark.parametrize("mutant", ADVISED)
async def test_what_is_advised_mends_it(installation, service_migrations, mutant):
    owner = await installation.connect(None, installation.common)
    assert await mended(ADVISED[mutant], owner, service_migrations)


@pytest.mark.parametrize("mutant", ADVISED_IN_CONTROL)
async def test_what_is_advised_mends_the_control_database(installation, service_migrations, mutant):
    owner = await installation.connect(None, installation.control)
    codes = await mended(ADVISED_IN_CONTROL[mutant], owner, service_migrations)
    assert set(codes) == {"POLICY_MISSING"}


async def test_the_fence_compares_no_setting_without_nullif(installation, service_migrations):
    """Text with text, which raises nowhere: another setting is another policy."""
    owner = await installation.connect(None, installation.common)
    codes = await mended(ADVISED["a fence by another setting"], owner, service_migrations)
    assert codes == ["POLICY_UNKNOWN"]


@pytest.mark.parametrize("mutant", MUTANTS)
async def test_a_mutant_is_found(installation, service_migrations, mutant):
    code, statement = MUTANTS[mutant]
    owner = await installation.connect(None, installation.common)
    await owner.execute(statement)
    assert code in {finding.code for finding in await lint(owner, service_migrations)}


async def codes_after(statement, installation, service_migrations):
    """What is found after a statement whose effect would outlive the database; it is taken back."""
    owner = await installation.connect(None, installation.common)
    transaction = owner.transaction()
    await transaction.start()
    await owner.execute(statement)
    found = await lint(owner, service_migrations)
    await transaction.rollback()
    return {finding.code for finding in found}


@pytest.mark.parametrize(
    "statement",
    [
        "alter role tlsy_web_shop bypassrls",
        "alter role tlsy_web_shop superuser",
        "grant tlsy_owner to tlsy_web_shop",
        "grant tlsy_migrator to tlsy_relay",
        "grant tlsy_migrator to tlsy_mover",
        "alter role tlsy_web_shop replication",
        "alter role tlsy_web_shop createrole",
        "alter role tlsy_web_shop createdb",
        "alter role tlsy_owner login",
        "create role somebody; grant tlsy_owner to somebody",
    ],
)
async def test_a_role_that_escapes_row_level_security_is_found(installation, service_migrations, statement):
    assert await codes_after(statement, installation, service_migrations) == {"ROLE_BYPASSES"}


@pytest.mark.parametrize(
    ("code", "statement"),
    [
        ("SETTING_ENTERS", "alter role tlsy_web_shop set app.current_tenant = 'a'"),
        ("SETTING_ENTERS", "alter role tlsy_web_shop set \"APP\".scope = 'platform'"),
        # As sessions begin where the server's own files set it, which all tests share.
        ("SETTING_ENTERS", "set app.scope = platform"),
        (
            "OWNER_WRONG",
            (
                "do $$ begin execute format("
                "'alter database %I owner to tlsy_web_shop', current_database()); end $$"
            ),
        ),
        ("GRANT_TOO_MANY", "grant set on parameter session_replication_role to tlsy_web_shop"),
        ("GRANT_TOO_MANY", "grant alter system on parameter app.scope to public"),
        ("OWNER_WRONG", "create role somebody; alter schema shared owner to somebody"),
        ("OWNER_WRONG", "create role somebody; alter procedure tlsy.enter owner to somebody"),
    ],
)
async def test_what_outlives_the_database_is_found(installation, service_migrations, code, statement):
    assert code in await codes_after(statement, installation, service_migrations)


@pytest.mark.parametrize(
    "statement",
    [
        "create role somebody; grant set on parameter session_replication_role to somebody",
        "create publication p for table tlsy.version",
        f"{EVENT_TRIGGER}; create extension btree_gist; alter extension btree_gist add event trigger unasked",
        "create view public.names as select 'none' as name",
        "alter table shared.orders add foreign key (tenant_id, order_id) references shared.orders",
        "create extension btree_gist; alter table shared.orders add exclude using gist (tenant_id with =)",
    ],
)
async def test_what_harms_no_tenant_is_left_alone(installation, service_migrations, statement):
    assert await codes_after(statement, installation, service_migrations) == set()


async def test_an_administrator_who_is_no_superuser_may_own_extensions(installation, service_migrations):
    made = (
        "create role somebody; do $$ declare name text := current_database(); begin "
        "execute format('grant create on database %I to somebody', name); "
        "set local role somebody; create extension btree_gin; reset role; "
        "execute format('revoke create on database %I from somebody', name); end $$"
    )
    assert await codes_after(made, installation, service_migrations) == set()


@pytest.mark.parametrize("control", [False, True])
def test_every_function_that_is_shipped_is_known(control):
    names = library_functions(control=control)
    assert {"enter", "set_fence", "protect", "drop_partitions", "erase_batch"} <= names.keys()
    assert ("enter_platform" in names) is control


async def test_a_clean_installation_has_no_finding(installation, service_migrations):
    await installation.provisioned_tenant(IsolationMode.SCHEMA)
    dedicated = await installation.provisioned_tenant(IsolationMode.DEDICATED)
    for placement in (installation.control, installation.common, dedicated.placement):
        assert await lint(await installation.connect(None, placement), service_migrations) == ()
