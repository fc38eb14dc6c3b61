"""The pipelines by name."""

from __future__ import annotations

from enum import StrEnum


class PipelineName(StrEnum):
    """What is learnt; the kind of source decides."""

    PTYCHOGRAPHY = "ptychography"
    """Patches of a specimen from the frames of a scan: sources `replay`, `simulation` and `live`."""
    CLASSIFICATION = "classification"
    """Classes of labelled images, task by task: source `images`."""
