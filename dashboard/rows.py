"""What viewers are told: rows made of what is known of a run."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ptychoflow.dashboard import models
from ptychoflow.dashboard.frame_picture import brightest_pixel
from ptychoflow.dashboard.mosaics import Mosaic
from ptychoflow.dashboard.probe import NewestFrame
from ptychoflow.streaming.events import PerspectiveScores, Quality, TaskAccuracies, ValidationLoss, chance
from ptychoflow.streaming.state.classification import TaskHistory
from ptychoflow.streaming.state.perspectives import Perspective
from ptychoflow.streaming.state.regime import RegimeHistory
from ptychoflow.streaming.state.run import RunState, figures_of
from ptychoflow.streaming.state.weights import WeightsHistory

PERSPECTIVES_SHOWN = 1000
TASKS_SHOWN = 200
"""The newest so many tasks are told of."""
NAMES_SHOWN = 8
REGIMES_SHOWN = 20


def perspective_rows(rows: Iterable[Perspective]) -> list[models.PerspectiveRow]:
    """Return what viewers are told about perspectives, the newest ones."""
    return [_perspective(row) for row in sorted(rows, key=lambda row: row.index)[-PERSPECTIVES_SHOWN:]]


def _perspective(row: Perspective) -> models.PerspectiveRow:
    newest = row.newest
    return models.PerspectiveRow(
        perspective=row.index,
        angle_deg=newest.angle_deg if newest else None,
        frames=newest.frames if newest else 0,
        first_pass=_scores(row.first_pass),
        refreshed=_scores(row.refreshed),
        constant=_figures(newest.constant) if newest else None,
        validation_loss=row.validation_loss,
        residual_first_pass=row.first_pass_residual.residual if row.first_pass_residual else None,
        residual_refreshed=row.refreshed_residual.residual if row.refreshed_residual else None,
    )


def _scores(scores: PerspectiveScores | None) -> models.Figures | None:
    return None if scores is None else _figures(scores.quality)


def _figures(quality: Quality) -> models.Figures:
    return models.Figures(**figures_of(quality))


def held_out_rows(state: RunState) -> list[models.HeldOut]:
    """Return what viewers are told about frames that nothing learnt from."""
    return [
        models.HeldOut(
            perspective=scores.perspective,
            frames=scores.frames,
            model_version=scores.model_version,
            quality=_figures(scores.quality),
            constant=_figures(scores.constant),
            memoriser=None if scores.memoriser is None else _figures(scores.memoriser),
        )
        for scores in state.perspectives.held_out()
    ]


def validation_row(loss: ValidationLoss) -> models.ValidationRow:
    """Return what viewers are told about an evaluation."""
    return models.ValidationRow(
        after_perspective=loss.after_perspective,
        step=loss.step,
        losses=loss.per_perspective,
        constant=loss.constant,
    )


def buffer_rows(state: RunState) -> list[models.RankBuffer]:
    """Return what viewers are told about the rehearsal buffer of every rank."""
    reports = state.training.buffers
    return [models.RankBuffer(rank=rank, **msgspec.structs.asdict(reports[rank])) for rank in sorted(reports)]


def weights_row(weights: WeightsHistory) -> models.WeightsHistory:
    """Return what viewers are told about versions of the network."""
    return models.WeightsHistory(
        published=weights.newest_published,
        versions=list(weights.versions),
        applied=weights.in_use,
        rejected=weights.rejected.count,
        last_rejection=weights.last_rejection,
    )


def regime_row(regime: RegimeHistory) -> models.RegimeState:
    """Return what viewers are told about regimes."""
    rules = regime.rules
    return models.RegimeState(
        name=regime.regime,
        automatic=rules is not None,
        threshold_psnr_phase_db=rules.psnr_db if rules else None,
        threshold_ssim_phase=rules.ssim if rules else None,
        history=[
            models.RegimeRow(time_s=time_s, **msgspec.structs.asdict(change))
            for time_s, change in list(regime.changes)[-REGIMES_SHOWN:]
        ],
    )


def classification_row(tasks: TaskHistory) -> models.Classification | None:
    """Return how tasks stand, None where no images are streamed."""
    info, after = tasks.info, tasks.after()
    if info is None:
        return None
    begun = [one for one in range(tasks.tasks) if tasks.live(one) is not None]
    learnt = after[-1].after_task + 1 if after else 1
    newest = max([*begun, *(one.after_task for one in after)], default=0)
    shown = range(max(0, newest - TASKS_SHOWN + 1), tasks.tasks)[:TASKS_SHOWN]
    return models.Classification(
        source=info.source,
        classes=info.classes,
        images_expected=sum(info.images),
        stored_px=info.stored_px,
        chance_top1=chance(info, top=1, seen=learnt),
        chance_top5=chance(info, top=5, seen=learnt),
        tasks=[_task(task, tasks, after[-1] if after else None) for task in shown],
        accuracies=[
            models.AccuracyRow(after_task=one.after_task, step=one.step, top1=one.top1) for one in after[-TASKS_SHOWN:]
        ],
    )


def _task(task: int, tasks: TaskHistory, last: TaskAccuracies | None) -> models.TaskRow:
    live = tasks.live(task)
    names = tasks.info.class_names[task] if tasks.info else []
    return models.TaskRow(
        task=task,
        class_names=names[:NAMES_SHOWN],
        classes=len(names),
        images_expected=tasks.images_expected(task),
        images=live.images if live else 0,
        scored=live.scored if live else 0,
        top1=live.top1 if live else None,
        top5=live.top5 if live else None,
        newest_version=live.newest_version if live else None,
        now_top1=last.top1.get(task) if last else None,
        now_top5=last.top5.get(task) if last else None,
    )


def probe_row(newest: NewestFrame) -> models.Probe:
    """Return what viewers are told about the newest frame."""
    return models.Probe(
        perspective=newest.info.perspective,
        index=newest.info.index,
        binned_px=newest.info.binned_px,
        most_frames=newest.info.most_frames,
        shape_px=(newest.diffraction.shape[0], newest.diffraction.shape[1]),
        brightest=brightest_pixel(newest.diffraction),
        revision=newest.revision,
    )


def mosaic_row(mosaic: Mosaic) -> models.MosaicRow:
    """Return what viewers are told about an image."""
    info = mosaic.info
    return models.MosaicRow(
        perspective=info.perspective,
        kind=info.kind,
        model_version=info.model_version,
        revision=mosaic.revision,
        shape_px=mosaic.shape_px,
        origin_px=info.origin_px,
        pixel_size_m=info.pixel_size_m,
        frames=info.frames,
        residual=mosaic.residual is not None,
    )
