select count(*) as items, min(parked_at) as oldest from __service__.parked_record where consumer_group = $1
