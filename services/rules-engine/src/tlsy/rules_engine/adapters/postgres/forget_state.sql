with gone as (
    delete from rule_state where tenant_id = $1 and owner = any($2::text[]) returning 1
)
select count(*) from gone
