select __cluster_columns__ from clusters where cluster_id > $1 order by cluster_id limit $2
