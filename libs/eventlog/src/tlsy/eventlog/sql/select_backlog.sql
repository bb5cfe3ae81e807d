select count(*) as items, min(occurred_at) as oldest
from (
    select occurred_at from __service__.outbox where published_at is null order by seq limit $1
) as waiting
