"""Hostile files: valid ones of each kind, what a stranger may do to them, and what counts as a failure."""
