"""A probe that is given to a live scan: of an earlier run, of a scan file, or an array."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers.numpy_arrays import mapped_array
from ptychoflow.acquisition.readers.probes import to_modes
from ptychoflow.acquisition.source_settings import ReplaySettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.run_folder import RunFolder


def load_probe(path: Path) -> npt.NDArray[np.complex64]:
    """Return a probe (mode, y, x) of frames as the detector sends them.

    Args:
        path: the folder of a run, a `.npy` file, or a scan file with a probe.

    Raises:
        UserError: there is no probe.
    """
    if path.is_dir():
        path = RunFolder(path).probe
        if not path.exists():
            raise UserError(f"{path}: this run has kept no probe; give one that has, or leave source.probe out")
    if path.suffix == ".npy":
        return to_modes(mapped_array(path), where=str(path))[0]
    with closing(open_scan(ReplaySettings(path=path))) as scan:
        probe = scan.perspective(0).probe
    if probe is None:
        raise UserError(f"{path}: there is no probe in it, and none can be estimated")
    return probe
