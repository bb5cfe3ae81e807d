"""Translates between the wire and the handlers; decides nothing."""
