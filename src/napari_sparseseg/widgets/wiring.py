"""What the panels of the dock wish, tied to what carries it out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sparseseg.widgets.home import recents

if TYPE_CHECKING:
    from napari_sparseseg.live.live_segmenter import LiveSegmenter
    from napari_sparseseg.widgets.actions import Actions
    from napari_sparseseg.widgets.bridge import LayerBridge
    from napari_sparseseg.widgets.class_panel import ClassPanel
    from napari_sparseseg.widgets.found_panel import FoundPanel
    from napari_sparseseg.widgets.image_panel import ImagePanel
    from napari_sparseseg.widgets.object_panel import ObjectPanel
    from napari_sparseseg.widgets.paint_panel import PaintPanel
    from napari_sparseseg.widgets.project_actions import ProjectActions
    from napari_sparseseg.widgets.project_panel import ProjectPanel
    from napari_sparseseg.widgets.result_panel import ResultPanel
    from napari_sparseseg.widgets.session import Session
    from napari_sparseseg.widgets.settings_panel import SettingsPanel
    from napari_sparseseg.widgets.suggestion import SuggestionTool
    from napari_sparseseg.widgets.suggestion_panel import SuggestionPanel
    from napari_sparseseg.widgets.train_panel import TrainPanel
    from napari_sparseseg.widgets.unsure_panel import UnsurePanel


def connect_image(panel: ImagePanel, settings: SettingsPanel, actions: Actions) -> None:
    """Image and settings."""
    panel.source_chosen.connect(actions.open_image)
    settings.configured.connect(lambda name, config: actions.configure(**{name: config}))
    settings.device_chosen.connect(lambda device: actions.configure(device=device))


def connect_project(panel: ProjectPanel, actions: ProjectActions, session: Session) -> None:
    """What is kept on disk."""
    panel.open_requested.connect(actions.ask_and_open)
    panel.recent_chosen.connect(actions.open)
    panel.recents_requested.connect(lambda: panel.show_recents(recents()))
    panel.save_as_requested.connect(actions.save_as)
    panel.history_requested.connect(actions.restore)
    panel.provenance_requested.connect(actions.export_provenance)
    panel.methods_requested.connect(actions.copy_methods)
    panel.store_requested.connect(actions.store_image)
    panel.offer_accepted.connect(actions.accept_offer)
    panel.offer_declined.connect(session.decline)


def connect_classes(panel: ClassPanel, actions: Actions, bridge: LayerBridge) -> None:
    """The list of classes."""
    panel.class_chosen.connect(bridge.set_class)
    panel.class_renamed.connect(actions.rename_class)
    panel.class_recolored.connect(actions.recolor_class)
    panel.class_removed.connect(actions.remove_class)
    panel.background_chosen.connect(actions.set_background)


def connect_paint(panel: PaintPanel, objects: ObjectPanel, actions: Actions, session: Session) -> None:
    """Painting, of classes and of objects."""
    bridge, live = session.bridge, session.live
    panel.mode_chosen.connect(bridge.set_mode)
    panel.brush_resized.connect(bridge.set_brush)
    panel.slice_chosen.connect(bridge.go_to)
    panel.complete_toggled.connect(actions.set_complete)
    panel.suggestion_requested.connect(lambda: actions.carry_out(live.suggest_slice))
    panel.undo_requested.connect(lambda: actions.carry_out(bridge.undo))
    panel.redo_requested.connect(lambda: actions.carry_out(bridge.redo))
    objects.toggled.connect(lambda wished: bridge.objects.switch(wished))
    objects.next_requested.connect(lambda: bridge.objects.take_next())


def connect_unsure(panel: UnsurePanel, bridge: LayerBridge) -> None:
    """Painting sets of classes."""
    panel.toggled.connect(lambda wished: bridge.unsure.switch(wished))
    panel.allowed.connect(lambda class_id, possible: bridge.unsure.allow(class_id, possible))


def connect_training(panel: TrainPanel, actions: Actions, live: LiveSegmenter) -> None:
    """Learning."""
    panel.start_requested.connect(lambda: actions.carry_out(live.start))
    panel.pause_requested.connect(lambda: actions.carry_out(live.pause))
    panel.update_requested.connect(lambda: actions.carry_out(live.update_once))
    panel.live_toggled.connect(lambda wished: live.set_live(wished))
    panel.reset_requested.connect(actions.reset_model)


def connect_results(panel: ResultPanel, actions: Actions, session: Session) -> None:
    """The prediction."""
    bridge, whole = session.bridge, session.live.whole
    panel.accept_slice_requested.connect(lambda: actions.accept(everything=False))
    panel.accept_all_requested.connect(lambda: actions.accept(everything=True))
    panel.prediction_toggled.connect(lambda: bridge.toggle_prediction())
    panel.outlines_toggled.connect(lambda: bridge.toggle_outlines())
    panel.save_model_requested.connect(actions.save_model)
    panel.load_model_requested.connect(actions.load_model)
    panel.export_requested.connect(actions.export_labels)
    panel.whole_requested.connect(actions.predict_all)
    panel.go_on_requested.connect(lambda: actions.carry_out(whole.go_on))
    panel.stop_requested.connect(lambda: whole.stop())
    panel.whole_shown.connect(lambda: actions.carry_out(session.show_whole))


def connect_found(panel: FoundPanel, actions: Actions, session: Session) -> None:
    """The objects that are found."""
    found = session.live.found
    panel.find_here_requested.connect(lambda: actions.carry_out(found.find_on_screen))
    panel.find_all_requested.connect(lambda: actions.carry_out(found.find_all))
    panel.cancel_requested.connect(lambda: actions.carry_out(found.cancel))
    panel.tool_chosen.connect(lambda tool: session.bridge.found.choose(tool))
    table = session.bridge.found.table
    panel.table.toggled.connect(lambda wished: table.switch(wished))
    panel.table.filtered.connect(lambda wished: table.filter_by(wished))
    panel.table.object_chosen.connect(lambda object_id: table.choose(object_id))
    panel.table.csv_requested.connect(actions.save_table)


def connect_suggestions(panel: SuggestionPanel, tool: SuggestionTool) -> None:
    """Suggested paint."""
    panel.grow_requested.connect(tool.grow)
    panel.fill_requested.connect(tool.fill)
    panel.accepted.connect(tool.accept)
    panel.refused.connect(tool.refuse)
