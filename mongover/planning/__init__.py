"""Decisions, all pure: the graph, targets, plans, problems and the sentences about them."""
