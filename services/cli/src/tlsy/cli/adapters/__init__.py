"""Servers, files and the terminal, as the commands see them."""
