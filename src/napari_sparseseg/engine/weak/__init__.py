"""Learning from partial knowledge, one file a method."""
