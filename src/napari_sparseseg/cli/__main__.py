"""`python -m napari_sparseseg.cli`."""

from __future__ import annotations

from napari_sparseseg.cli import main

if __name__ == "__main__":
    main()
