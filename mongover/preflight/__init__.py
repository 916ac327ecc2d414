"""What can be known before a run; nothing here writes."""
