"""The scan of a run that has ended, once more: from its file, or from what its detector sent."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from ptychoflow.acquisition.detectors.arrivals_file import ArrivalsReader
from ptychoflow.acquisition.detectors.live_scan import LiveScan
from ptychoflow.acquisition.detectors.settings import LiveSettings
from ptychoflow.acquisition.detectors.sources import make_decoder
from ptychoflow.acquisition.frame_check import chosen_as_streamed, usable
from ptychoflow.acquisition.ptychography.acquired import AcquiredPerspective, TakenFrames
from ptychoflow.acquisition.publishing.ledger import Ledger
from ptychoflow.acquisition.scan import OpenEndedPerspective
from ptychoflow.acquisition.scan_settings import ScanSourceSettings
from ptychoflow.acquisition.sources import load_probe, open_scan
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.messages import FrameRole

log = logging.getLogger(__name__)

FRAMES_AT_ONCE = 16


def scan_again(source: ScanSourceSettings, arrivals: Path) -> Iterator[OpenEndedPerspective]:
    """Yield the perspectives of a run; the frames of one are to be taken before the next is asked for.

    Args:
        source: of the run.
        arrivals: folder of what a detector sent.

    Raises:
        UserError: the source, or what came from it, cannot be read any more.
    """
    if not isinstance(source, LiveSettings):
        with closing(open_scan(source)) as scan:
            yield from scan
        return
    live = LiveScan(
        source,
        ArrivalsReader(arrivals),
        [make_decoder(one) for one in source.sources],
        # what has not come by now never will
        attend=lambda: math.inf,
        probe=None if source.probe is None else load_probe(source.probe),
        ledger=Ledger(),
        warn=log.warning,
    )
    with closing(live):
        for perspective in live.arriving():
            if perspective is not None:
                yield perspective
            elif live.table.first is None:
                return


def take_again(perspective: OpenEndedPerspective, folder: Path) -> AcquiredPerspective:
    """Take the frames of a perspective as a run does, without dealing out their roles.

    Args:
        perspective: whose frames are read.
        folder: for the frames; it is there already.

    Raises:
        OSError: the disk does not take them.
    """
    taken = TakenFrames(perspective, folder)
    for batch in perspective.batches(FRAMES_AT_ONCE):
        if batch is None:
            continue
        good = usable(batch.frames)
        arrays: Arrays = {
            "index": batch.indices[good],
            "role": np.full(int(good.sum()), FrameRole.TRAIN, np.uint8),
            "position_px": batch.positions_px[good],
            "diffraction": chosen_as_streamed(batch.frames, good),
        }
        taken.add(arrays, acquired=len(batch))
    return taken.perspective_acquired()
