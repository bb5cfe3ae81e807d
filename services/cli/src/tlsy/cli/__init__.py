"""The tlsy command line."""
