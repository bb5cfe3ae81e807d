-- Holds the fence if it is of epoch $3: who is about to raise it must not hold it, as another may be, too.
select epoch from __service__.consumer_fence
where tenant_id = $1 and consumer_group = $2 and epoch = $3
for share
