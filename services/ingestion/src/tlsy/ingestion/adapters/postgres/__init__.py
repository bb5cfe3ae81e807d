"""The tenant-plane tables of ingestion."""
