insert into ingest_quota_passed (tenant_id, month, passed_at) values ($1, $2, $3) on conflict do nothing
