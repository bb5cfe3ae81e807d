select pg_try_advisory_xact_lock(hashtext('tlsy.relay'), hashtext('__service__'))
