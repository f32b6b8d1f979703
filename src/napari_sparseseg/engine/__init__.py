"""The learning engine: torch and numpy, no threads, no files, no GUI."""
