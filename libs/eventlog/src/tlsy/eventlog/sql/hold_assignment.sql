-- Holds the partition's assignment if it is of epoch $4: who takes the next one waits, and then sees what was done.
select epoch from tlsy.partition_assignment
where topic = $1 and consumer_group = $2 and partition = $3 and epoch = $4
for share
