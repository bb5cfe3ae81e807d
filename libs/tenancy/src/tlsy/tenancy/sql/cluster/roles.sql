-- Once per PostgreSQL server, by its administrator. Passwords are set apart from this.
do $$
begin
    if to_regrole('tlsy_owner') is null then
        create role tlsy_owner nologin;
    end if;
    if to_regrole('tlsy_migrator') is null then
        create role tlsy_migrator login createdb bypassrls;
    end if;
    if to_regrole('tlsy_mover') is null then
        create role tlsy_mover login bypassrls;
    end if;
    if to_regrole('tlsy_relay') is null then
        create role tlsy_relay login;
    end if;
end
$$;

grant tlsy_owner to tlsy_migrator with inherit true, set true;
-- Ends sessions that are left in a database which is about to be dropped or copied.
grant pg_signal_backend to tlsy_migrator;
alter role tlsy_relay set search_path = '';
alter role tlsy_relay set jit = off;
