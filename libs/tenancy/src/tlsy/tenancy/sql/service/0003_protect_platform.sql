select tlsy.protect('__service__.outbox', 'platform', 'tlsy___service__');
select tlsy.protect('__service__.inbox', 'platform');
select tlsy.protect('__service__.consumer_fence', 'platform');
select tlsy.protect('__service__.idempotency', 'platform');
select tlsy.protect('__service__.parked_record', 'platform');
select tlsy.partition_by_time('__service__.outbox', keep_days => 7, ahead_days => 2,
    needed_while => 'published_at is null');
-- A service that is new to an old installation reads its peers' topics from their beginning.
select tlsy.partition_by_time('__service__.inbox', keep_days => 9, behind_days => 9, first_behind_days => 1,
    ahead_days => 2);
