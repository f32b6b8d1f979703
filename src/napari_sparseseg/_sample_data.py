"""Sample data for napari's menu File > Open Sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_sparseseg import samples

LayerData = tuple[Any, dict[str, Any], str]

_UNITS = ("micrometer",) * 3
_CHANNELS = (("membranes", "magenta"), ("nuclei", "green"))


def tissue() -> list[LayerData]:
    """Generate the tissue as one image layer, voxel sizes in micrometres."""
    sample = samples.tissue()
    return [(sample.image, {"name": "tissue", "scale": sample.spacing, "units": _UNITS}, "image")]


def cells3d() -> list[LayerData]:
    """Download the cells as two image layers, one for each dye, as napari opens channels.

    Raises `InputError` if the volume is not there yet and cannot be downloaded.
    """
    sample = samples.cells3d()
    channels = np.moveaxis(sample.image, sample.channel_axis or 0, 0)
    shared = {"scale": sample.spacing, "units": _UNITS, "blending": "additive"}
    return [
        (channel, {"name": f"cells3d {name}", "colormap": colormap, **shared}, "image")
        for channel, (name, colormap) in zip(channels, _CHANNELS, strict=True)
    ]
