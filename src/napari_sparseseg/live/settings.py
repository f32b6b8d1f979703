"""What can be set about a live segmenter."""

from __future__ import annotations

from dataclasses import dataclass

from napari_sparseseg.config import ModelConfig, PredictionConfig, TrainingConfig


@dataclass(frozen=True, slots=True)
class Settings:
    """Configurations and the device that is asked for."""

    model: ModelConfig
    training: TrainingConfig
    prediction: PredictionConfig
    device: str = "auto"
