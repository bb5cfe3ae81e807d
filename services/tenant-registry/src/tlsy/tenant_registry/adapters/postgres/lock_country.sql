select code, display_name, allowed_cluster_countries, version from countries where code = $1 for update
