"""Test fixtures: real servers as local processes, or as containers where Docker runs."""
