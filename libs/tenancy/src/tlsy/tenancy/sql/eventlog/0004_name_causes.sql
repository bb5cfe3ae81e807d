-- Who caused an event, and the request that it goes back to; '' in rows of before. Bounded by their type: a check
-- would have to look at every row.
alter table __service__.outbox
    add column principal varchar(256) not null default '',
    add column correlation_id varchar(64) not null default '';
