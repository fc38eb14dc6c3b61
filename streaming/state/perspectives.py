"""The perspectives of a scan: what their stitched images are worth, and where their ground truth came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import msgspec

from ptychoflow.streaming.events import (
    GroundTruthReady,
    HeldOutScores,
    MosaicKind,
    PerspectiveScores,
    ResidualScores,
    Telemetry,
    ValidationLoss,
)
from ptychoflow.streaming.messages import GroundTruthSource
from ptychoflow.streaming.state.rows import PERSPECTIVES_KEPT, Rows, newest_of

HELD_OUT_KEPT = 1000
VERSIONS_KEPT = 512
"""Of the weights that contributed to one image."""


@dataclass(frozen=True)
class Perspective:
    """One perspective as far as it is known."""

    index: int
    first_pass: PerspectiveScores | None = None
    refreshed: PerspectiveScores | None = None
    first_pass_residual: ResidualScores | None = None
    refreshed_residual: ResidualScores | None = None
    ground_truth: GroundTruthSource | None = None
    validation_loss: float | None = None
    """The newest on this perspective."""

    @property
    def newest(self) -> PerspectiveScores | None:
        """The scores of the newest pass."""
        return self.refreshed or self.first_pass


class Perspectives:
    """Follows the perspectives of one run; the newest score of each pass counts."""

    def __init__(self) -> None:
        self.rows: Rows[int, Perspective] = Rows(PERSPECTIVES_KEPT, by_key=True)
        self.newest: PerspectiveScores | None = None
        """The score that came last."""
        self._held_out: Rows[int, HeldOutScores] = Rows(HELD_OUT_KEPT, by_key=True)

    def held_out(self) -> list[HeldOutScores]:
        """Return the scores of held-out frames, by perspective."""
        return sorted(self._held_out.all(), key=lambda scores: scores.perspective)

    def apply(self, telemetry: Telemetry, *, number: int) -> None:
        """Take in event `number`; kinds that say nothing of single perspectives are ignored."""
        match telemetry.event:
            case PerspectiveScores(perspective=index, kind=kind) as told:
                scores = msgspec.structs.replace(told, model_versions=told.model_versions[-VERSIONS_KEPT:])
                self.newest, row = scores, self._row(index)
                if kind is MosaicKind.FIRST_PASS:
                    self.rows.put(index, replace(row, first_pass=scores), event=number)
                elif kind is MosaicKind.REFRESHED:
                    self.rows.put(index, replace(row, refreshed=scores), event=number)
            case ResidualScores(perspective=index, kind=MosaicKind.FIRST_PASS) as residual:
                self.rows.put(index, replace(self._row(index), first_pass_residual=residual), event=number)
            case ResidualScores(perspective=index, kind=MosaicKind.REFRESHED) as residual:
                self.rows.put(index, replace(self._row(index), refreshed_residual=residual), event=number)
            case GroundTruthReady(perspective=index, source=source):
                self.rows.put(index, replace(self._row(index), ground_truth=source), event=number)
            case ValidationLoss(per_perspective=losses):
                self._put_losses(newest_of(losses, PERSPECTIVES_KEPT), number)
            case HeldOutScores(perspective=index) as scores:
                self._held_out.put(index, scores, event=number)
            case _:
                pass

    def go_back(self, evaluations: Iterable[ValidationLoss], *, number: int) -> None:
        """Take back all validation losses but those of `evaluations`, as event `number` has it."""
        losses: dict[int, float | None] = {row.index: None for row in self.rows.all()}
        for evaluation in sorted(evaluations, key=lambda one: one.step):
            losses.update(evaluation.per_perspective)
        self._put_losses(losses, number)

    def _put_losses(self, losses: Mapping[int, float | None], number: int) -> None:
        for index, loss in losses.items():
            row = self._row(index)
            if row.validation_loss != loss:
                self.rows.put(index, replace(row, validation_loss=loss), event=number)

    def _row(self, index: int) -> Perspective:
        return self.rows.get(index) or Perspective(index)
