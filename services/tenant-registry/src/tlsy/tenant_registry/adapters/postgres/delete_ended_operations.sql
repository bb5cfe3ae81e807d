delete from operations where outcome <> 'RUNNING' and updated_at < $1
