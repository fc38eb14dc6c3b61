"""Whether the scans of an experiment can be prepared and learnt, before minutes of phase retrieval."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.source_settings import ReplaySettings, SimulationSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.pipelines.ptychography.check import Shapes, check_network, check_scan_buffer
from ptychoflow.workflow.contained import contained
from ptychoflow.workflow.experiments.case import Case
from ptychoflow.workflow.experiments.ptychography.preparation import load_training_set_scan, training_set_scans
from ptychoflow.workflow.experiments.ptychography.settings import PtychographyExperiment, TrainingSetSettings
from ptychoflow.workflow.launching.source_check import look_at_scan


def check_scans(settings: PtychographyExperiment, cases: Iterable[Case]) -> None:
    """Look at all scans, at the network that is to learn them, and at the buffers of all cases; blocks for seconds.

    Raises:
        UserError: a scan cannot be read or has no ground truth where it is to bring that, frames differ between
            scans, or do not fit the network, its initial weights or a buffer.
    """
    check = partial(_check, settings, list(cases))
    if files := list(_files(settings)):
        contained(check, files)
    else:
        check()


def _files(settings: PtychographyExperiment) -> Iterator[Path]:
    """Yield the files from outside that are read."""
    for _, source, _ in _other_scans(settings):
        if source.probe.measured is not None:
            yield source.probe.measured
    match settings.source:
        case ReplaySettings(paths=paths):
            yield from paths
        case SimulationSettings(probe=probe) if probe.measured is not None:
            yield probe.measured


def _other_scans(settings: PtychographyExperiment) -> Iterator[tuple[str, SimulationSettings, RetrievalSettings]]:
    """Yield the scans before and after the first one, with their names in the configuration."""
    if settings.earlier is not None:
        yield "earlier", settings.earlier.source, settings.like_first(settings.earlier.retrieval)
    for place, later in enumerate(settings.later):
        yield f"later.{place}", later.source, settings.like_first(later.retrieval)


def _check(settings: PtychographyExperiment, cases: list[Case]) -> None:
    first = _first_scan(settings)
    if not all(case.method.remembers_only for case in cases):
        check_network(settings.trainer, first)
    for case in cases:
        check_scan_buffer(case.learning, first, ranks=case.ranks)
    for name, source, retrieval in _other_scans(settings):
        found = look_at_scan(source, retrieval, settings.nothing_held_out, seed=settings.experiment.first_seed)
        if found.frame_px != first.frame_px:
            raise UserError(
                f"{name}.source: its frames have {found.frame_px} px, those of the first scan {first.frame_px} px: "
                f"set {name}.source.frame_shape_px"
            )
        # what was learnt earlier leaves a network, and no samples
        if found.dtype != first.dtype and name != "earlier":
            raise UserError(
                f"{name}.source: its frames come as {found.dtype}, those of the first scan as {first.dtype}: change "
                f"{name}.source.photons_per_frame"
            )


def _first_scan(settings: PtychographyExperiment) -> Shapes:
    source, seed = settings.source, settings.experiment.first_seed
    if not isinstance(source, TrainingSetSettings):
        return look_at_scan(source, settings.retrieval, settings.roles, seed=seed)
    shapes: dict[Shapes, Path] = {}
    for scan in training_set_scans(source):
        frames, patches = load_training_set_scan(scan)
        (frame_height, frame_width), (height, width) = frames.shape[1:], patches.shape[1:]
        shapes[Shapes((frame_height, frame_width), (height, width), frames.dtype.name)] = scan
    first, *others = shapes
    if others:
        raise UserError(
            f"{shapes[others[0]]}: frames and patches have other shapes or types than in "
            f"{shapes[first]}: {others[0]}, not {first}; put them into a folder of their own"
        )
    return first
