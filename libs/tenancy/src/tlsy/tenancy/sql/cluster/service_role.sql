-- The login role of one service. What it may do is granted per database; these settings hold behind a pooler,
-- where a session brings none of its own.
do $$
begin
    if to_regrole('tlsy___service__') is null then
        create role tlsy___service__ login;
    end if;
end
$$;

alter role tlsy___service__ set search_path = '';
alter role tlsy___service__ set jit = off;
alter role tlsy___service__ set statement_timeout = '10s';
alter role tlsy___service__ set lock_timeout = '5s';
alter role tlsy___service__ set idle_in_transaction_session_timeout = '30s';
