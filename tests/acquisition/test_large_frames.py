"""Frames of 16 million pixels: memory stays bounded, and what is cut out of them is right."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
from asymmetric_scan import FRAMES, frames, write_scan

from ptychoflow.acquisition.source_settings import PreprocessSettings, ReplaySettings
from ptychoflow.acquisition.sources import open_scan

SHAPE_PX, CORNER_PX, COUNT = (4150, 4371), (1000, 3000), 40
PREPROCESS = PreprocessSettings(centre_px=(1032, 3032), crop_px=(64, 64))
STORED_BYTES = SHAPE_PX[0] * SHAPE_PX[1] * 4
READ_ALL = """
import resource, sys
from ptychoflow.acquisition.source_settings import ReplaySettings
from ptychoflow.acquisition.sources import open_scan
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for perspective in open_scan(ReplaySettings.model_validate_json(sys.argv[1])):
    for batch in perspective.batches(16):
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A replay of frames that are small pictures in large ones; most of a file's chunks are not written."""
    path = write_scan(tmp_path_factory.mktemp("large") / "large.cxi")
    top, left = CORNER_PX
    with h5py.File(path, "r+") as file:
        del file[FRAMES]
        large = file.create_dataset(FRAMES, (len(frames()), *SHAPE_PX), "uint32", chunks=(1, 512, 512))
        for number, counts in enumerate(frames()):
            large[number, top : top + 64, left : left + 64] = counts
    drop = tuple(range(COUNT, len(frames())))
    return ReplaySettings(path=path, preprocess=PREPROCESS, drop_frames=drop)


def test_a_few_stored_frames_are_in_memory_at_once(scan):
    # Finding bad pixels takes sums and copies of whole frames; sixteen of them at once do not fit.
    read = [sys.executable, "-c", READ_ALL, scan.model_dump_json()]
    grown = subprocess.run(read, check=True, capture_output=True, text=True)
    assert int(grown.stdout) * 1024 < 14 * STORED_BYTES


def test_what_is_cut_out_is_what_was_put_in(scan):
    (perspective,) = open_scan(scan)
    np.testing.assert_array_equal(perspective.read(3, 9), frames()[3:9])
    assert perspective.read(3, 3).shape == (0, 64, 64)
