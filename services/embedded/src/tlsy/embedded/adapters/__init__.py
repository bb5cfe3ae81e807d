"""The disk, the database server and the broker of one machine."""
