"""Supervision events: limits, outcomes, storage, query and tail."""
