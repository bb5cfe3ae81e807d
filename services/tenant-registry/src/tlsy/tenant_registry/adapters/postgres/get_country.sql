-- Nobody changes it before the end: who places a tenant does so by the policy that is in force then.
select code, display_name, allowed_cluster_countries, version from countries where code = $1 for share
