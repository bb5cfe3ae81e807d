select epoch from __service__.consumer_fence where tenant_id = $1 and consumer_group = $2 for share
