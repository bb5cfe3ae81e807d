update clusters set schemas_full = $2 where cluster_id = $1 and schemas_full <> $2
