"""The command line: a lazy group of commands, and the one place that prints."""
