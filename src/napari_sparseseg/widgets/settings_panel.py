"""SettingsPanel: every setting of model, training, paint and prediction, and the device; folded at first."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QLabel

from napari_sparseseg.config import ModelConfig, PaintConfig, PredictionConfig, TrainingConfig
from napari_sparseseg.live.settings import Settings
from napari_sparseseg.widgets.controls import Section, row
from napari_sparseseg.widgets.form import Config, ConfigForm

DEVICES = (("auto", "Automatic"), ("cpu", "CPU"), ("cuda", "GPU (CUDA)"), ("mps", "GPU (Apple)"))
_DEVICE_TIP = "What computes. Automatic takes a GPU if there is one. A change takes hold when the model is reset."
_NOTES = {
    "model": "Changes take hold when the model is reset.",
    "paint": "Changes take hold with the next stroke.",
}
_FORMS: tuple[tuple[str, str, str, Config], ...] = (
    ("training", "Training", "How the network learns.", TrainingConfig()),
    ("paint", "Meaning of paint", "How much is believed of paint, and what follows from it.", PaintConfig()),
    ("prediction", "Prediction", "How a volume is predicted.", PredictionConfig()),
    ("model", "Network", "The shape of the network.", ModelConfig()),
)


class SettingsPanel(Section):
    """Forms made from the configs; a change is a wish."""

    configured = Signal(str, object)
    """Which config (training, paint, prediction, model), and the new one."""
    device_chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__("Settings", "Settings of network, training and prediction; the defaults suit most images.")
        self.forms: dict[str, ConfigForm] = {}
        self._device = QComboBox()
        for name, title in DEVICES:
            self._device.addItem(title, name)
        self._device.setToolTip(_DEVICE_TIP)
        self._device.setAccessibleName("Device")
        label = QLabel("Device")
        label.setBuddy(self._device)
        label.setToolTip(_DEVICE_TIP)
        self.body.addLayout(row(label, None, self._device))
        for name, title, tooltip, config in _FORMS:
            self._add_form(name, title, tooltip, config)
        self._device.activated.connect(lambda _: self.device_chosen.emit(self._device.currentData()))

    def show_settings(self, settings: Settings) -> None:
        """Show these settings; emits nothing."""
        for name, form in self.forms.items():
            config: Config = getattr(settings, name)
            if form.config != config:
                form.show_config(config)
        self._device.setCurrentIndex(max(0, self._device.findData(settings.device)))

    def _add_form(self, name: str, title: str, tooltip: str, config: Config) -> None:
        section = Section(title, tooltip)
        self.forms[name] = ConfigForm(config, note=_NOTES.get(name, ""))
        self.forms[name].changed.connect(lambda config, name=name: self.configured.emit(name, config))
        section.body.addWidget(self.forms[name])
        self.body.addWidget(section)
