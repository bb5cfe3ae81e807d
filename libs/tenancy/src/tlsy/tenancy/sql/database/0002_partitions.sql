-- Tables partitioned by time: which they are, and how their partitions come and go.

create table tlsy.time_table (
    schema_name text not null,
    table_name text not null,
    unit text not null check (unit in ('day', 'month')),
    behind_days integer not null check (behind_days >= 0),
    first_behind_days integer not null check (first_behind_days between 0 and behind_days),
    ahead_days integer not null check (ahead_days > 0),
    keep_days integer not null check (keep_days > 0),
    -- A partition with a row that meets this SQL condition is not dropped, however old.
    needed_while text,
    primary key (schema_name, table_name)
);

-- A new partition has row-level security off, and read directly it would show every tenant: here it is
-- forced on before the partition is attached, without a policy, and nobody is granted anything.
-- Attaching (unlike CREATE … PARTITION OF) does not stop readers and writers of the table.
-- Safe with several workers; answers whether a partition was made.
create function tlsy.ensure_partition(target regclass, unit text, day date) returns boolean
language plpgsql security invoker as $$
declare
    lower constant date := date_trunc(unit, day::timestamp)::date;
    upper constant date := (lower + ('1 ' || unit)::interval)::date;
    parent record;
    name text;
    suffix text := '';
begin
    perform pg_advisory_xact_lock(hashtext('tlsy.partition'), target::oid::integer);
    select n.nspname, c.relname, a.atttypid into strict parent
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        join pg_partitioned_table p on p.partrelid = c.oid
        join pg_attribute a on a.attrelid = c.oid and a.attnum = p.partattrs[0]
        where c.oid = target;
    name := format('%I.%I', parent.nspname, parent.relname || '_p'
        || to_char(lower, case unit when 'day' then 'YYYYMMDD' else 'YYYYMM' end));
    if to_regclass(name) is not null then
        return false;
    end if;
    if parent.atttypid = 'timestamptz'::regtype then
        suffix := ' 00:00:00+00';
    end if;
    execute format('create table %s (like %s including all excluding identity)', name, target);
    if current_user <> 'tlsy_owner' then
        execute format('alter table %s owner to tlsy_owner', name);
    end if;
    execute format('alter table %s enable row level security, force row level security', name);
    execute format('alter table %s attach partition %s for values from (%L) to (%L)',
        target, name, lower || suffix, upper || suffix);
    return true;
end
$$;

-- Declares a table that is partitioned by range of one date or timestamptz column and makes its first
-- partitions, from `first_behind_days` before today (UTC; by default all of `behind_days`). `unit` is 'day'
-- or 'month'; by default monthly in a schema that is one of many in its database (t_<hex>), daily elsewhere.
create function tlsy.partition_by_time(
    target regclass, keep_days integer, behind_days integer default 1, ahead_days integer default 7,
    needed_while text default null, unit text default null, first_behind_days integer default null
) returns void language plpgsql security invoker as $$
declare
    place record;
begin
    select n.nspname, c.relname into strict place
        from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = target;
    insert into tlsy.time_table (
        schema_name, table_name, unit, behind_days, first_behind_days, ahead_days, keep_days, needed_while
    ) values (
        place.nspname, place.relname,
        coalesce(unit, case when place.nspname ~ '^t_[0-9a-f]{32}$' then 'month' else 'day' end),
        behind_days, coalesce(first_behind_days, behind_days), ahead_days, keep_days, needed_while
    );
    perform tlsy.make_partitions(target, (now() at time zone 'utc')::date, true);
end
$$;

-- Makes the partitions of a declared table around `today`; answers how many were missing. `first`: no further
-- back than a new table needs.
create function tlsy.make_partitions(target regclass, today date, first boolean default false) returns integer
language plpgsql security invoker as $$
declare
    spec tlsy.time_table;
    behind integer;
    made integer;
begin
    select t.* into strict spec from tlsy.time_table t
        join pg_namespace n on n.nspname = t.schema_name
        join pg_class c on c.relnamespace = n.oid and c.relname = t.table_name
        where c.oid = target;
    behind := case when first then spec.first_behind_days else spec.behind_days end;
    select count(*) filter (where tlsy.ensure_partition(target, spec.unit, day::date)) into made
        from generate_series(
            date_trunc(spec.unit, (today - behind)::timestamp),
            (today + spec.ahead_days)::timestamp, ('1 ' || spec.unit)::interval) as day;
    return made;
end
$$;

-- The UTC day at which a partition of a declared table ends. Bounds are written as the session shows times.
create function tlsy.partition_end(partition regclass) returns date
language sql stable security invoker set timezone = 'UTC' set datestyle = 'ISO' as $$
    select (regexp_match(pg_get_expr(relpartbound, oid), 'TO \(''(\d{4}-\d\d-\d\d)'))[1]::date
        from pg_class where oid = partition
$$;

-- How many days from `today` on the declared table with the fewest partitions ahead has any.
create function tlsy.days_ahead(today date) returns integer language sql stable security invoker as $$
    select coalesce(min(days), 0) from (
        select coalesce(max(tlsy.partition_end(i.inhrelid)) - today, 0) as days
        from tlsy.time_table t join pg_namespace n on n.nspname = t.schema_name
        join pg_class c on c.relnamespace = n.oid and c.relname = t.table_name
        left join pg_inherits i on i.inhparent = c.oid
        group by c.oid
    ) tables
$$;

-- Drops the partitions of a declared table that end before `today` minus its keep_days and are not needed;
-- answers how many. Refuses to judge under row-level security, where every partition looks empty.
create function tlsy.drop_partitions(target regclass, today date) returns integer
language plpgsql security invoker as $$
declare
    spec tlsy.time_table;
    old record;
    needed boolean;
    dropped integer := 0;
begin
    perform pg_advisory_xact_lock(hashtext('tlsy.partition'), target::oid::integer);
    select t.* into strict spec from tlsy.time_table t
        join pg_namespace n on n.nspname = t.schema_name
        join pg_class c on c.relnamespace = n.oid and c.relname = t.table_name
        where c.oid = target;
    for old in
        select c.oid::regclass as name
        from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = target
            and tlsy.partition_end(c.oid) <= today - spec.keep_days
        order by 1
    loop
        if row_security_active(old.name) then
            raise exception using errcode = 'TL011', message = 'RETENTION_IS_BLIND';
        end if;
        needed := false;
        if spec.needed_while is not null then
            execute format('select exists (select from %s where %s)', old.name, spec.needed_while) into needed;
        end if;
        if not needed then
            execute format('drop table %s', old.name);
            dropped := dropped + 1;
        end if;
    end loop;
    return dropped;
end
$$;

revoke all on all functions in schema tlsy from public;
