"""Forms of the configs."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QFocusEvent, QWheelEvent
from qtpy.QtWidgets import QApplication, QLabel

from napari_sparseseg.config import ModelConfig, PaintConfig, PredictionConfig, TrainingConfig
from napari_sparseseg.widgets.form import ConfigForm
from napari_sparseseg.widgets.numbers import Bounds, number_text

CONFIGS = [
    (ModelConfig(), ModelConfig(scales=(1.0, 2.5), width=24, depth=2, head_width=32)),
    (TrainingConfig(), TrainingConfig(learning_rate=1e-5, averaging=0.9995, flips=False, default_seconds=12.5)),
    (PredictionConfig(), PredictionConfig(tile_voxels=1 << 30, intensity="training")),
]


@pytest.fixture
def make(qtbot):
    def make(config, **options):
        form = ConfigForm(config, **options)
        form.setFixedWidth(330)
        qtbot.addWidget(form)
        form.show()
        qtbot.waitExposed(form)
        seen = []
        form.changed.connect(seen.append)
        return form, seen

    return make


def type_into(qtbot, field, text):
    field.setFocus()
    field.selectAll()
    qtbot.keyClicks(field, text)
    qtbot.keyClick(field, Qt.Key.Key_Return)


@pytest.mark.parametrize(("config", "other"), CONFIGS)
class TestRoundTrip:
    def test_every_field_shows_and_gives_back_its_value(self, make, config, other):
        form, seen = make(config)
        for shown in (config, other, config):
            form.show_config(shown)
            values = {name: form.field(name).read_value() for name in type(config).model_fields}
            assert form.config == shown == type(config)(**values)
        assert seen == []

    def test_defaults_come_back(self, make, qtbot, config, other):
        form, seen = make(other)
        qtbot.mouseClick(form._defaults, Qt.MouseButton.LeftButton)
        assert seen == [config]
        assert form.config == config
        assert not form._defaults.isEnabled()

    def test_every_field_has_label_and_tooltip(self, make, config, other):
        form, _ = make(config)
        labels = {label.text(): label for label in form.findChildren(QLabel)}
        for name, info in type(config).model_fields.items():
            assert labels[info.title].buddy() is form.field(name)
            assert form.field(name).toolTip()

    def test_it_fits_into_the_dock(self, make, config, other):
        form, _ = make(other)
        assert form.minimumSizeHint().width() <= 330


class TestEditing:
    def test_a_number_that_is_typed(self, make, qtbot):
        form, seen = make(TrainingConfig())
        type_into(qtbot, form.field("learning_rate"), "1e-4")
        assert seen == [TrainingConfig(learning_rate=1e-4)]
        assert form.field("learning_rate").text() == "0.0001"

    def test_a_comma_is_a_decimal_point(self, make, qtbot):
        form, seen = make(TrainingConfig())
        type_into(qtbot, form.field("dropout"), "0,5")
        assert seen == [TrainingConfig(dropout=0.5)]

    def test_nothing_is_told_while_typing(self, make, qtbot):
        form, seen = make(TrainingConfig())
        form.field("batch_size").selectAll()
        qtbot.keyClicks(form.field("batch_size"), "16")
        assert seen == []
        qtbot.keyClick(form.field("batch_size"), Qt.Key.Key_Return)
        assert seen == [TrainingConfig(batch_size=16)]

    def test_a_check_box_and_a_choice(self, make, qtbot):
        form, seen = make(TrainingConfig())
        qtbot.keyClick(form.field("flips"), Qt.Key.Key_Space)
        assert seen == [TrainingConfig(flips=False)]
        form, seen = make(PredictionConfig())
        qtbot.keyClick(form.field("intensity"), Qt.Key.Key_Down)
        assert seen == [PredictionConfig(intensity="training")]

    def test_numbers_for_some_classes_and_none_again(self, make, qtbot):
        form, seen = make(PaintConfig())
        type_into(qtbot, form.field("class_weights"), "1, 0.5")
        form.field("class_weights").clear()
        type_into(qtbot, form.field("class_weights"), "")
        assert seen == [PaintConfig(class_weights=(1.0, 0.5)), PaintConfig()]

    def test_a_weight_of_no_use_is_explained(self, make, qtbot):
        form, seen = make(PaintConfig())
        type_into(qtbot, form.field("class_weights"), "1, 0")
        assert "class_weights" in form.explanation
        assert not seen

    def test_several_numbers(self, make, qtbot):
        form, seen = make(ModelConfig())
        type_into(qtbot, form.field("scales"), "1, 2; 6.5")
        assert seen == [ModelConfig(scales=(1.0, 2.0, 6.5))]

    def test_the_same_value_again_is_not_told(self, make, qtbot):
        form, seen = make(TrainingConfig())
        type_into(qtbot, form.field("learning_rate"), "0.003")
        type_into(qtbot, form.field("learning_rate"), "3e-3")
        assert seen == []

    def test_the_wheel_changes_nothing(self, make):
        form, seen = make(PredictionConfig())
        for name in ("tile_voxels", "intensity"):
            field = form.field(name)
            field.setFocus()
            event = QWheelEvent(
                QPointF(5, 5),
                QPointF(field.mapToGlobal(QPoint(5, 5))),
                QPoint(),
                QPoint(0, -120),
                Qt.MouseButton.NoButton,
                Qt.KeyboardModifier.NoModifier,
                Qt.ScrollPhase.NoScrollPhase,
                False,
            )
            QApplication.sendEvent(field, event)
        assert seen == []
        assert form.config == PredictionConfig()


class TestExplaining:
    @pytest.mark.parametrize(
        ("name", "typed", "words"),
        [
            ("batch_size", "100", "Patches per step: whole number from 1 to 64; “100” was not taken."),
            ("batch_size", "2.5", "Patches per step: whole number from 1 to 64; “2.5” was not taken."),
            ("learning_rate", "0", "Step size: above 0, at most 1; “0” was not taken."),
            ("dropout", "1", "Dropout: at least 0, below 1; “1” was not taken."),
            ("patience", "-3", "Patience: whole number at least 1; “-3” was not taken."),
            ("batch_size", "1e", "Patches per step: whole number from 1 to 64; “1e” was not taken."),
        ],
    )
    def test_a_number_out_of_bounds_is_explained_and_the_old_one_stays(self, make, qtbot, name, typed, words):
        form, seen = make(TrainingConfig())
        before = form.field(name).text()
        type_into(qtbot, form.field(name), typed)
        assert form.explanation == words
        assert form._explanation.isVisible()
        assert form.field(name).text() == before
        assert seen == []
        assert form.config == TrainingConfig()

    def test_it_is_explained_when_the_focus_leaves_too(self, make, qtbot):
        form, _ = make(TrainingConfig())
        field = form.field("batch_size")
        field.selectAll()
        qtbot.keyClicks(field, "100")
        QApplication.sendEvent(field, QFocusEvent(QEvent.Type.FocusOut))
        assert "1 to 64" in form.explanation

    @pytest.mark.parametrize("typed", ["1, two", "", "nan"])
    def test_numbers_that_cannot_be_are_explained(self, make, qtbot, typed):
        form, seen = make(ModelConfig())
        form.field("scales").clear()
        type_into(qtbot, form.field("scales"), typed)
        assert "scales" in form.explanation
        assert form.field("scales").text() == "1, 2, 4, 8, 16"
        assert seen == []

    def test_the_explanation_goes_with_the_next_value(self, make, qtbot):
        form, _ = make(TrainingConfig())
        type_into(qtbot, form.field("batch_size"), "100")
        type_into(qtbot, form.field("batch_size"), "4")
        assert form.explanation == ""
        assert not form._explanation.isVisible()

    def test_a_config_of_another_class_is_refused(self, make):
        form, _ = make(TrainingConfig())
        with pytest.raises(TypeError, match="TrainingConfig"):
            form.show_config(ModelConfig())


class TestSteps:
    def stepped(self, make, qtbot, name, key, n, config=None):
        form, _ = make(config or TrainingConfig())
        texts = []
        for _ in range(n):
            qtbot.keyClick(form.field(name), key)
            texts.append(form.field(name).text())
        return texts

    def test_a_rate_goes_through_the_decades(self, make, qtbot):
        down = self.stepped(make, qtbot, "learning_rate", Qt.Key.Key_Down, 5)
        assert down == ["0.002", "0.001", "0.0005", "0.0002", "0.0001"]
        up = self.stepped(make, qtbot, "learning_rate", Qt.Key.Key_Up, 4)
        assert up == ["0.005", "0.01", "0.02", "0.05"]

    def test_a_rate_that_may_be_zero_gets_there_and_back(self, make, qtbot):
        config = TrainingConfig(weight_decay=2e-5)
        assert self.stepped(make, qtbot, "weight_decay", Qt.Key.Key_Down, 3, config) == ["1e-5", "5e-6", "0"]
        assert self.stepped(make, qtbot, "weight_decay", Qt.Key.Key_Up, 1, TrainingConfig(weight_decay=0)) == ["1e-5"]

    def test_a_rate_never_gets_to_a_bound_that_is_excluded(self, make, qtbot):
        config = TrainingConfig(learning_rate=4e-6)
        texts = self.stepped(make, qtbot, "learning_rate", Qt.Key.Key_Down, 4, config)
        assert all(float(text) > 0 for text in texts)

    def test_a_memory_goes_through_the_decades_of_its_distance_to_one(self, make, qtbot):
        assert self.stepped(make, qtbot, "averaging", Qt.Key.Key_Down, 3) == ["0.998", "0.995", "0.99"]
        assert self.stepped(make, qtbot, "averaging", Qt.Key.Key_Up, 2) == ["0.9995", "0.9998"]

    def test_voxels_double(self, make, qtbot):
        assert self.stepped(make, qtbot, "patch_voxels", Qt.Key.Key_Up, 2) == ["131072", "262144"]
        assert self.stepped(make, qtbot, "patch_voxels", Qt.Key.Key_Down, 8)[-1] == "512"

    def test_a_share_goes_in_twentieths_and_stops_at_its_bounds(self, make, qtbot):
        assert self.stepped(make, qtbot, "held_out", Qt.Key.Key_Up, 10)[-1] == "0.5"
        assert self.stepped(make, qtbot, "held_out", Qt.Key.Key_Down, 5) == ["0.05", "0", "0", "0", "0"]


@pytest.mark.parametrize("config", [ModelConfig, TrainingConfig, PredictionConfig])
def test_bounds_say_what_the_config_checks(config):
    for name, info in config.model_fields.items():
        if info.annotation not in (int, float):
            continue
        bounds = Bounds.of(info)
        for value in (-1.0, 0.0, 1.0, 0.5, 64.0, 65.0, 1e9):
            with_value = dict.fromkeys([name], int(value) if info.annotation is int and value % 1 == 0 else value)
            try:
                config(**with_value)
                is_valid = True
            except ValueError:
                is_valid = False
            assert bounds.holds(value) == is_valid, (name, value)


@pytest.mark.parametrize(
    ("number", "text"), [(0.003, "0.003"), (65536, "65536"), (1e-5, "1e-5"), (2.0, "2"), (0.9995, "0.9995")]
)
def test_numbers_are_written_as_they_are_read(number, text):
    assert number_text(number) == text
