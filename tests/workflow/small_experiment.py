"""Small experiments on scans, and samples that tell themselves apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptychoflow.acquisition.source_settings import SimulationSettings, SpecimenPhase
from ptychoflow.inference_edge.stitching.quality import ReferenceImage
from ptychoflow.streaming.messages import FrameRole
from ptychoflow.workflow.configuration.pipeline_name import PipelineName
from ptychoflow.workflow.experiments.case import CaseFolder
from ptychoflow.workflow.experiments.ptychography.case import all_cases
from ptychoflow.workflow.experiments.ptychography.dataset import (
    PerspectiveSamples,
)
from ptychoflow.workflow.experiments.ptychography.preparation import prepare, prepare_earlier
from ptychoflow.workflow.experiments.ptychography.settings import (
    PtychographyExperiment,
)
from ptychoflow.workflow.experiments.rank import train_cases


def samples(index: int, frames: int) -> PerspectiveSamples:
    """Frame i of perspective p is filled with 100 p + i; every fifth frame validates."""
    numbers = 100 * index + np.arange(frames)
    roles = np.where(np.arange(frames) % 5 == 4, FrameRole.VALIDATION, FrameRole.TRAIN).astype(np.uint8)
    patches = np.broadcast_to(numbers[:, None, None], (frames, 2, 2)).astype(np.float16)
    return PerspectiveSamples(
        index,
        10.0 * index,
        samples={
            "diffraction": np.broadcast_to(numbers[:, None, None], (frames, 4, 4)).astype(np.uint16),
            "amplitude": patches,
            "phase": -patches,
        },
        roles=roles,
        positions_px=np.stack([numbers, numbers], axis=1).astype(float),
        reference=ReferenceImage(np.ones((3, 3), np.float32), np.zeros((3, 3), np.float32), (0.5, 1.5)),
    )


SOURCE = SimulationSettings(
    frames_per_perspective=40,
    frame_shape_px=(32, 32),
    specimens=(
        SpecimenPhase(kind="cells", perspectives=2, seed=1),
        SpecimenPhase(kind="integrated_circuit", perspectives=1, seed=2),
    ),
)


def experiment(**changes: Any) -> PtychographyExperiment:
    values = {
        "source": SOURCE.model_dump(mode="json"),
        "retrieval": {"source": "simulated", "target_shape_px": [16, 16]},
    }
    return PtychographyExperiment.model_validate(values | changes)


def trained(settings: PtychographyExperiment, folder: Path) -> list[dict[str, Any]]:
    """Return the figures of all cases, trained in this process."""
    folders = []
    for case in all_cases(settings, folder):
        if case.earlier and settings.earlier is not None:
            prepare_earlier(settings, settings.earlier, seed=0, folder=case.dataset)
        else:
            prepare(settings, seed=0, folder=case.dataset)
        folders.append(CaseFolder(folder / case.name))
        folders[-1].begin(case)
    train_cases(PipelineName.PTYCHOGRAPHY, folders)
    return [found for one in folders if (found := one.figures()) is not None]
