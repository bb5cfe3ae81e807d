insert into countries (code, display_name, allowed_cluster_countries, version)
values ($1, $2, $3, 1)
on conflict (code) do nothing
returning true
