select tlsy.protect('__service__.outbox', 'platform', 'tlsy___service__');
select tlsy.protect('__service__.inbox', 'platform');
select tlsy.protect('__service__.consumer_fence', 'platform');
select tlsy.protect('__service__.idempotency', 'platform');
select tlsy.protect('__service__.parked_record', 'platform');
select tlsy.partition_by_time('__service__.outbox', keep_days => 7, ahead_days => 3,
    needed_while => 'published_at is null');
select tlsy.partition_by_time('__service__.inbox', keep_days => 9, behind_days => 9, ahead_days => 3);
