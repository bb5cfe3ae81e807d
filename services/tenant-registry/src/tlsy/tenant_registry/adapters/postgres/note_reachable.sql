update clusters set unreachable_since = case when $2 then null else coalesce(unreachable_since, $3) end
where cluster_id = $1 and (unreachable_since is null) <> $2
