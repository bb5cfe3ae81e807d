"""The catalogue in PostgreSQL, what it tells others, and the databases it provisions."""
