"""Benchmarks of single methods of learning from weak labels; `benchmarks/weak_labels.py` runs them."""
