select count(*) from __service__.parked_record where consumer_group = $1
