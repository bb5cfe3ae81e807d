insert into __service__.relay_state (reconciled_log) values ($1)
on conflict (only_row) do update set reconciled_log = excluded.reconciled_log
