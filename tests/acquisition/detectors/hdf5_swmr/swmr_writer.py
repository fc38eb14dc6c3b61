"""Writes an HDF5 file in SWMR mode, as it is told line by line; answers `done`."""

import sys
from pathlib import Path

import h5py
import numpy as np

SHAPE_PX = (3, 4)


def main(folder: Path) -> None:
    """Do what the lines say: `open NAME`, `frames COUNT`, `positions COUNT`, `close`, `reopen NAME`, `append NAME`."""
    file = None
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "open":
            file = h5py.File(folder / rest[0], "w", libver="latest")
            frames = file.create_dataset("entry/data/data", (0, *SHAPE_PX), "u2", maxshape=(None, *SHAPE_PX))
            positions = file.create_dataset("entry/positions", (0, 2), "f8", maxshape=(None, 2), chunks=(16, 2))
            positions.attrs["units"] = "um"
            file.swmr_mode = True
        elif word == "reopen":
            file = h5py.File(folder / rest[0], "r+", libver="latest")
            frames, positions = file["entry/data/data"], file["entry/positions"]
            file.swmr_mode = True
        elif word == "close":
            file.close()
        elif word == "append":
            with h5py.File(folder / rest[0], "r+") as closed:
                closed.attrs["note"] = "added afterwards"
        elif word == "frames":
            for index in range(len(frames), int(rest[0])):
                frames.resize(index + 1, axis=0)
                frames[index] = np.full(SHAPE_PX, index)
            frames.flush()
        else:
            for index in range(len(positions), int(rest[0])):
                positions.resize(index + 1, axis=0)
                positions[index] = (index, -2 * index)
            positions.flush()
        sys.stdout.write("done\n")
        sys.stdout.flush()


main(Path(sys.argv[1]))
