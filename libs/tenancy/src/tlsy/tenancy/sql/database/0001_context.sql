-- What every database with rows of tenants has: the fence, the one way into a tenant's context, and the
-- functions that protect its tables.
--
-- Advisory locks: the space of one 64-bit key belongs to tenants (the hash of the tenant's id); everything
-- else uses the space of two 32-bit keys.

create table tlsy.version (
    component text not null,
    schema_name text not null,
    revision text not null,
    applied_at timestamptz not null default now(),
    primary key (component, schema_name)
);

create function tlsy.set_version(component text, schema_name text, revision text) returns void
language sql security invoker as $$
    insert into tlsy.version (component, schema_name, revision)
    values (set_version.component, set_version.schema_name, set_version.revision)
    on conflict on constraint version_pkey do update set revision = excluded.revision, applied_at = now()
$$;

create table tlsy.fence (
    tenant_id uuid primary key,
    epoch bigint not null check (epoch > 0),
    writable boolean not null,
    state text not null check (state in ('ACTIVE', 'SUSPENDED', 'DELETING')),
    -- Where enter() points search_path; null in the control database: the schema of the role that asks.
    -- A name that needs no quotes, for it is put there as it is.
    schema_name text check (schema_name = quote_ident(schema_name)),
    changed_at timestamptz not null default now()
);

-- TL001: the fence is missing or has another epoch (resolve again). TL002: it does not admit writes.
-- The lock is shared with every other transaction of the tenant and excludes set_fence: who has passed the
-- check commits before the fence moves. Each statement of a procedure sees what was committed before it, so
-- the fence is read as it is once the lock is held. A procedure, because CALL is not planned as SELECT is.
create procedure tlsy.enter(tenant uuid, epoch bigint, write boolean)
language plpgsql security invoker as $$
declare
    path text;
begin
    -- Few statements, and few functions and operators in them: each transaction looks every one of them up
    -- anew, and that is most of what the way in costs.
    path := case
        when pg_advisory_xact_lock_shared(uuid_hash_extended(tenant, 0)) is not null
            and set_config('app.current_tenant', tenant::text, true) is not null
            then set_config('app.epoch', enter.epoch::text, true)
    end;
    select f.schema_name into path
        from tlsy.fence f
        where f.tenant_id = enter.tenant and f.epoch = enter.epoch and (f.writable or not enter.write);
    if path is null then
        if found then
            -- The control database, where there is a scope too.
            path := set_config('app.scope', '', true) || quote_ident(substr(current_user, 6));
        elsif exists (select from tlsy.fence f where f.tenant_id = enter.tenant and f.epoch = enter.epoch) then
            raise exception using errcode = 'TL002', message = 'NOT_WRITABLE';
        else
            raise exception using errcode = 'TL001', message = 'STALE_EPOCH';
        end if;
    end if;
    path := set_config('search_path', path, true);
end
$$;

-- For the provisioner, a suspension and a move. Waits until every transaction inside the tenant has ended.
-- Writing the same fence again changes nothing; one with a lower epoch, or another fence of the same epoch,
-- is refused with TL003.
create function tlsy.set_fence(tenant uuid, epoch bigint, writable boolean, state text, schema_name text)
returns void language plpgsql security invoker as $$
begin
    perform pg_advisory_xact_lock(uuid_hash_extended(tenant, 0));
    insert into tlsy.fence as f (tenant_id, epoch, writable, state, schema_name)
    values (tenant, set_fence.epoch, set_fence.writable, set_fence.state, set_fence.schema_name)
    on conflict (tenant_id) do update
        set epoch = excluded.epoch, writable = excluded.writable, state = excluded.state,
            schema_name = excluded.schema_name, changed_at = now()
        where f.epoch < excluded.epoch
            or (f.epoch, f.writable, f.state) = (excluded.epoch, excluded.writable, excluded.state)
            and f.schema_name is not distinct from excluded.schema_name;
    if not found then
        raise exception using errcode = 'TL003', message = 'FENCE_WENT_BACK';
    end if;
end
$$;

create function tlsy.remove_fence(tenant uuid) returns void language plpgsql security invoker as $$
begin
    perform pg_advisory_xact_lock(uuid_hash_extended(tenant, 0));
    delete from tlsy.fence where tenant_id = tenant;
end
$$;

-- Row-level security of one table, in one of two shapes: 'tenant' shows the rows of the tenant that was
-- entered; 'platform' (control database only) also shows all rows inside enter_platform().
-- A sub-select is evaluated once per statement, and what is inside it needs none of its own; nullif because a
-- transaction-local setting leaves '' behind.
-- The restrictive policies are the second line behind enter(): no row without a fence of the same epoch, no
-- write without a writable one (DELETE has a policy of its own, because it has no WITH CHECK). They hold for
-- `fenced`, PUBLIC but where another role must read across tenants (the relay, on outboxes).
create function tlsy.protect(target regclass, shape text default 'tenant', fenced name default 'public')
returns void language plpgsql security invoker as $$
declare
    tenant constant text :=
        '(select nullif(current_setting(''app.current_tenant'', true), ''''))::uuid';
    platform constant text := '(select nullif(current_setting(''app.scope'', true), '''')) = ''platform''';
    fence constant text :=
        'exists (select from tlsy.fence f'
        ' where f.tenant_id = nullif(current_setting(''app.current_tenant'', true), '''')::uuid'
        ' and f.epoch = nullif(current_setting(''app.epoch'', true), '''')::bigint';
    role constant text := case fenced when 'public' then 'public' else quote_ident(fenced) end;
    either text := case shape when 'tenant' then '' when 'platform' then ' or ' || platform end;
    own text := format('tenant_id = %s%s', tenant, either);
    readable text := format('%s)%s', fence, either);
    writable text := format('%s and f.writable)%s', fence, either);
begin
    if either is null then
        raise exception 'unknown shape %', shape;
    end if;
    if shape = 'platform' and to_regprocedure('tlsy.enter_platform()') is null then
        raise exception 'shape platform exists only in the control database';
    end if;
    execute format('alter table %s enable row level security, force row level security', target);
    execute format('create policy tenant on %s using (%s) with check (%s)', target, own, own);
    execute format('create policy fence on %s as restrictive to %s using (%s) with check (%s)',
        target, role, readable, writable);
    execute format('create policy fence_delete on %s as restrictive for delete to %s using (%s)',
        target, role, writable);
end
$$;

-- The fence itself shows a tenant's row to that tenant alone. It is read one row at a time, by its key: the
-- setting as it is, compared as text, is cheaper than the other tables' policy, and '' is no tenant's id.
alter table tlsy.fence enable row level security, force row level security;
create policy tenant on tlsy.fence
    using (tenant_id::text = current_setting('app.current_tenant', true))
    with check (tenant_id::text = current_setting('app.current_tenant', true));

-- Runs one data-changing statement of a migration over the rows of all tenants: as the session's own role,
-- because row-level security is forced on the owner, who would silently change nothing.
-- Answers the rows it changed, reports them as a notice, and fails if there were rows but none was changed.
create function tlsy.backfill(target regclass, statement text) returns bigint
language plpgsql security invoker as $$
declare
    owner constant text := current_setting('role');
    touched bigint;
    occupied boolean;
begin
    perform set_config('role', 'none', true);
    if row_security_active(target) then
        raise exception using errcode = 'TL011', message = 'BACKFILL_IS_BLIND',
            hint = 'migrate as tlsy_migrator, which is not subject to row-level security';
    end if;
    execute statement;
    get diagnostics touched = row_count;
    execute format('select exists (select from %s)', target) into occupied;
    if touched = 0 and occupied then
        raise exception using errcode = 'TL010', message = 'BACKFILL_TOUCHED_NOTHING',
            detail = target::text;
    end if;
    raise notice using errcode = 'TL100', message = 'BACKFILL', detail = format('%s %s', target, touched);
    perform set_config('role', owner, true);
    return touched;
end
$$;

-- Revokes what a role has on the tables of a schema beyond `allowed` ('orders select', …).
create function tlsy.revoke_beyond(schema_name text, role text, allowed text[]) returns void
language plpgsql security invoker as $$
declare
    beyond record;
begin
    for beyond in
        select c.oid::regclass as name, a.privilege_type as privilege
        -- By what depends on the schema, because pg_class would be read whole: there may be a thousand schemas.
        from pg_depend d join pg_class c on c.oid = d.objid, aclexplode(c.relacl) a
        where d.refclassid = 'pg_namespace'::regclass and d.refobjid = schema_name::regnamespace
            and d.classid = 'pg_class'::regclass and c.relkind in ('r', 'p', 'v', 'm', 'f')
            and a.grantee = role::regrole
            and c.relname || ' ' || lower(a.privilege_type) <> all (allowed)
    loop
        execute format('revoke %s on %s from %I', beyond.privilege, beyond.name, role);
    end loop;
end
$$;

revoke all on all routines in schema tlsy from public;
