"""What can be set about a live segmenter."""

from __future__ import annotations

from dataclasses import dataclass, field

from napari_sparseseg.config import ModelConfig, PaintConfig, PredictionConfig, TrainingConfig

_PROTOCOLS = ("tcp://", "tls://", "ws://", "wss://", "ucx://")


def is_address(device: str) -> bool:
    """Whether a device is the address of a Dask scheduler, on whose workers is trained."""
    return device.startswith(_PROTOCOLS)


@dataclass(frozen=True, slots=True)
class Settings:
    """Configurations and the device that is asked for."""

    model: ModelConfig
    training: TrainingConfig
    prediction: PredictionConfig
    device: str = "auto"
    paint: PaintConfig = field(default_factory=PaintConfig)
