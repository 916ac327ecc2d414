"""The values that answer, and the JSON that they become."""
