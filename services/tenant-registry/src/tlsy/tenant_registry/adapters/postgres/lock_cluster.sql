select __cluster_columns__ from clusters where cluster_id = $1 for update
