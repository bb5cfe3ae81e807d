-- Only in the control database: the scope that sees all tenants' rows of the asking service, and the leases
-- of workers.

create function tlsy.enter_platform() returns void language plpgsql security invoker as $$
begin
    perform set_config('app.current_tenant', '', true),
            set_config('app.epoch', '', true),
            set_config('app.scope', 'platform', true),
            set_config('search_path', quote_ident(substr(current_user, 6)), true);
end
$$;

revoke all on function tlsy.enter_platform() from public;

-- Who may act as a worker. A taker raises the token; who still has the former one is refused.
create table tlsy.lease (
    name text primary key,
    holder text not null,
    token bigint not null,
    expires_at timestamptz not null,
    -- So that an update of the token excludes FOR KEY SHARE, and one of expires_at does not.
    unique (name, token)
);
