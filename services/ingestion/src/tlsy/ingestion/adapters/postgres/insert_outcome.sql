insert into ingest_outcomes (
    tenant_id, record_time, outcome_id, partition, record_offset, accepted, duplicates, rejected, rejections
) values ($1, $2, $3, $4, $5, $6, $7, $8, $9::jsonb)
