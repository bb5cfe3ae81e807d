insert into ingest_quota_passed (tenant_id, month, quota, passed_at) values ($1, $2, $3, $4) on conflict do nothing
