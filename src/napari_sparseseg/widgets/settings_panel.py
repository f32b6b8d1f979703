"""SettingsPanel: every setting of model, training, paint and prediction, and the device; folded at first."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QInputDialog, QLabel

from napari_sparseseg.config import ModelConfig, PaintConfig, PredictionConfig, TrainingConfig
from napari_sparseseg.live.settings import Settings, is_address
from napari_sparseseg.widgets.controls import Section, row
from napari_sparseseg.widgets.form import Config, ConfigForm

DEVICES = (("auto", "Automatic"), ("cpu", "CPU"), ("cuda", "GPU (CUDA)"), ("mps", "GPU (Apple)"))
_CLUSTER = "cluster"
_DEVICE_LETTERS = 14
_DEVICE_TIP = (
    "What computes. Automatic takes a GPU if there is one; a worker of a Dask cluster can train, while this machine "
    "predicts. A change takes hold when the model is reset."
)
_ASK_ADDRESS = "Address of the scheduler, such as tcp://host:8786. Use only clusters that you trust:"
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
        self._device.addItem("Dask cluster…", _CLUSTER)
        self._device.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._device.setMinimumContentsLength(_DEVICE_LETTERS)  # an address may be long
        self._device.setToolTip(_DEVICE_TIP)
        self._device.setAccessibleName("Device")
        label = QLabel("Device")
        label.setBuddy(self._device)
        label.setToolTip(_DEVICE_TIP)
        self.body.addLayout(row(label, None, self._device))
        for name, title, tooltip, config in _FORMS:
            self._add_form(name, title, tooltip, config)
        self._device.activated.connect(self._on_device_activated)
        self._shown_device = DEVICES[0][0]

    def show_settings(self, settings: Settings) -> None:
        """Show these settings; emits nothing."""
        for name, form in self.forms.items():
            config: Config = getattr(settings, name)
            if form.config != config:
                form.show_config(config)
        self._show_device(settings.device)

    def _show_device(self, device: str) -> None:
        self._shown_device = device
        if is_address(device) and self._device.findData(device) < 0:
            self._device.insertItem(self._device.findData(_CLUSTER), device, device)
        self._device.setCurrentIndex(max(0, self._device.findData(device)))

    def _on_device_activated(self) -> None:
        device = self._device.currentData()
        if device == _CLUSTER:
            address, is_given = QInputDialog.getText(self, "Dask cluster", _ASK_ADDRESS, text="tcp://")
            if not is_given or not is_address(address.strip()):
                self._show_device(self._shown_device)
                return
            device = address.strip()
            self._show_device(device)
        self.device_chosen.emit(device)

    def _add_form(self, name: str, title: str, tooltip: str, config: Config) -> None:
        section = Section(title, tooltip)
        self.forms[name] = ConfigForm(config, note=_NOTES.get(name, ""))
        self.forms[name].changed.connect(lambda config, name=name: self.configured.emit(name, config))
        section.body.addWidget(self.forms[name])
        self.body.addWidget(section)
