-- In the platform's scope each tenant once, in a tenant's scope the rows that row-level security leaves.
select __tenant_columns__ from tenants
where (not $1 or tenant_id = subject_id)
    and (slug, subject_id) > ($2, $3::uuid)
    and ($4::text is null or country = $4)
    and ($5::text is null or parent_slug = $5)
    and (case when $6::text[] is null then state <> 'DELETED' else state = any ($6) end)
    and ($7::text[] is null or isolation_mode = any ($7))
    and ($8::text is null or sector_profile = $8)
    and ($9::text is null or cluster_id = $9)
order by slug, subject_id
limit $10
