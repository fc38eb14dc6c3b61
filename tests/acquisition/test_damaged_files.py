"""Damaged files of every format: each is read or refused in one line, whatever its bytes say."""

import random
from contextlib import closing

import h5py
import numpy as np
import pytest
import tifffile
from format_files import GEOMETRY, SCAN, write_eiger, write_fold_slice, write_nexus, write_ptychodus
from scan_files import probe_of, write_cxi

from ptychoflow.acquisition.inspect import inspect_scan
from ptychoflow.acquisition.readers.choosing import UnknownLayout
from ptychoflow.acquisition.readers.draft import draft_map
from ptychoflow.acquisition.readers.survey import survey
from ptychoflow.acquisition.source_settings import ReplaySettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.errors import UserError

MUTATIONS = 24
"""Of each format; more of them by hand, with other seeds, find more."""
POSITIONS = {"file": "where.npy", "columns": "yx", "unit": "m"}


def write(kind, folder):
    """Write a scan; return its file and the settings that it needs."""
    path, settings = folder / kind, {}
    np.save(folder / "where.npy", SCAN.positions_m)
    if kind == "scan.cxi":
        write_cxi(path)
    elif kind == "scan.nxs":
        write_nexus(path)
        settings = {"frame_axes": "yx"}
    elif kind == "eiger":
        path, settings = write_eiger(folder), {"positions": POSITIONS}
    elif kind == "ptychodus":
        path = write_ptychodus(folder)[0]
    elif kind == "fold_slice":
        write_fold_slice(folder)
        path, settings = folder / "scan_dp.hdf5", {"geometry": GEOMETRY}
    elif kind == "scan.npz":
        np.savez_compressed(path, data=SCAN.frames, scan=SCAN.positions_px, probe=probe_of())
        settings = {"geometry": GEOMETRY}
    elif kind == "scan.npy":
        np.save(path, SCAN.frames)
        settings = {"geometry": GEOMETRY, "positions": POSITIONS}
    else:
        tifffile.imwrite(path, SCAN.frames)
        settings = {"geometry": GEOMETRY, "positions": POSITIONS}
    return path, settings


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Cut a file short, or change some of its bytes; headers more often than data."""
    if chance.random() < 0.1:
        return content[: chance.randrange(len(content))]
    changed = bytearray(content)
    end = len(changed) if chance.random() < 0.5 else min(len(changed), 12_000)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        place = chance.randrange(end)
        changed[place] = chance.choice([0, 1, 127, 255, changed[place] ^ (1 << chance.randrange(8))])
    return bytes(changed)


@pytest.mark.parametrize(
    "kind", ["scan.cxi", "scan.nxs", "eiger", "ptychodus", "fold_slice", "scan.npz", "scan.npy", "scan.tif"]
)
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path, kind):
    path, settings = write(kind, tmp_path)
    originals = {file: file.read_bytes() for file in sorted(tmp_path.iterdir())}
    chance = random.Random(kind)
    for _ in range(MUTATIONS):
        victim = chance.choice(list(originals))
        victim.write_bytes(damaged(originals[victim], chance))
        try:
            with closing(open_scan(ReplaySettings.model_validate({"path": path, **settings}))) as scan:
                inspect_scan(scan)
        except UnknownLayout as unknown:
            with h5py.File(unknown.path) as file:
                assert draft_map(survey(file), name="damaged")
        except UserError as refusal:
            assert "\n" not in str(refusal)
        victim.write_bytes(originals[victim])
