"""Reading and writing volumes: numpy and zarr, no torch, no GUI."""
