"""Sample data for napari's menu File > Open Sample."""

from __future__ import annotations

from typing import Any

from napari_sparseseg import samples

LayerData = tuple[Any, dict[str, Any], str]


def tissue() -> list[LayerData]:
    """Generate the tissue as one image layer, voxel sizes in micrometres."""
    sample = samples.tissue()
    return [(sample.image, {"name": "tissue", "scale": sample.spacing, "units": ("micrometer",) * 3}, "image")]
