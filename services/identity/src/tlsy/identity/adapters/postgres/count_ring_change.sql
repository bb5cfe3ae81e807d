update key_ring set version = version + 1 returning version
