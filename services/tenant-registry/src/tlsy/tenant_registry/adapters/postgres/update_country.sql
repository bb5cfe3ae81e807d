update countries set display_name = $2, allowed_cluster_countries = $3, version = version + 1 where code = $1
returning version
