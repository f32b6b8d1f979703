"""What can be set about a live segmenter."""

from __future__ import annotations

from dataclasses import dataclass, field

from napari_sparseseg.config import ModelConfig, PaintConfig, PredictionConfig, TrainingConfig


@dataclass(frozen=True, slots=True)
class Settings:
    """Configurations and the device that is asked for."""

    model: ModelConfig
    training: TrainingConfig
    prediction: PredictionConfig
    device: str = "auto"
    paint: PaintConfig = field(default_factory=PaintConfig)
