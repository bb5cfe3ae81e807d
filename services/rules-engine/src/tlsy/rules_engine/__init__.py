"""Rules, versions, rule state and incidents."""
