"""Prediction of volumes larger than memory, by one process or the workers of a Dask cluster."""
