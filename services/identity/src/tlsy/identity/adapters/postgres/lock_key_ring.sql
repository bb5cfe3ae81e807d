select only_row from key_ring for update
