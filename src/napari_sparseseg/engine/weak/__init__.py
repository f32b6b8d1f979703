"""Learning from partial knowledge, one module for each method."""
