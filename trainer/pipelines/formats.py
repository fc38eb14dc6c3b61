"""What the samples of a stream look like, by its announcement."""

from __future__ import annotations

from ptychoflow.streaming.messages import ScanStart, StreamStart
from ptychoflow.trainer.interface.sample_format import SampleFormat
from ptychoflow.trainer.pipelines.classification.samples import ImageSamples
from ptychoflow.trainer.pipelines.ptychography.samples import FrameSamples


def format_of(start: StreamStart) -> SampleFormat:
    """Return the format of the samples that come."""
    return FrameSamples(start) if isinstance(start, ScanStart) else ImageSamples(start)
