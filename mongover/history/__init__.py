"""What the database remembers of its revisions, and who holds the lease."""
