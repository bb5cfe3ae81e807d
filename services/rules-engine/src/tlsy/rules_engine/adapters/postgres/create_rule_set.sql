insert into rule_set (tenant_id) values ($1) on conflict do nothing
