"""SliceSearch: looks for the slice to paint next, in short pieces. Lives on the compute thread."""

from __future__ import annotations

from collections.abc import Iterator

from napari_sparseseg._types import Plane
from napari_sparseseg.engine.predictor import Predictor
from napari_sparseseg.engine.weak.advice import TILE_VOXELS, Advisor
from napari_sparseseg.live.events import LiveState, SuggestedSlice
from napari_sparseseg.live.learner import Learner
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.live.reporter import Reporter
from napari_sparseseg.live.switchboard import Advise

_MOST_TILES = 12  # somebody waits


class SliceSearch:
    """Answers wishes for a slice, with the network as it is when it begins.

    Without a model, slices lie at fixed intervals whatever was wished.
    """

    def __init__(self, opened: Opened, learner: Learner, reporter: Reporter) -> None:
        self._opened, self._learner, self._reporter = opened, learner, reporter
        self._going_on: tuple[Advise, Advisor, Iterator[float]] | None = None

    def work(self, wish: Advise | None) -> bool:
        """Do one piece; False if no slice is wished for."""
        if wish is None:
            self._going_on = None
            return False
        if self._going_on is None or self._going_on[0] is not wish:
            advisor = self._advisor(wish)
            self._going_on = wish, advisor, advisor.work()
        _, advisor, pieces = self._going_on
        if next(pieces, None) is not None:
            self._reporter.at_work(LiveState.PREDICTING, "Looking where to paint next")
            return True
        self._going_on = None
        self._opened.switch.finish_advice(wish)
        for advice in advisor.found:
            plane = Plane(wish.frame, advice.axis, advice.index)
            self._reporter.suggestion(SuggestedSlice(plane, advice.spot, advice.score, wish.method))
        if not advisor.found:
            self._reporter.notice("There is paint on every slice of this orientation")
        return True

    def _advisor(self, wish: Advise) -> Advisor:
        image, predictor = self._opened.image, None
        if self._learner.fitted is not None:
            predictor = Predictor(self._learner.weights(), self._learner.map(wish.frame), tile_voxels=TILE_VOXELS)
        return Advisor(
            image.shape[1:],
            image.spacing,
            {wish.axis: wish.painted},
            axes=(wish.axis,),
            method="intervals" if predictor is None else wish.method,
            predictor=predictor,
            most_tiles=_MOST_TILES,
        )
