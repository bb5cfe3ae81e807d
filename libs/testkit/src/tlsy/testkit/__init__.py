"""Test fixtures: real servers as local processes."""
