"""`ptychoflow inspect --orientation` of the measured star, lying in all ways: the settings it prints put it right.

Ways and settings are matrices here, and what is right follows from them: nothing of the project's own is used for it.
"""

import itertools
import json
import re
from contextlib import closing
from functools import cache

import h5py
import numpy as np
import pytest

from ptychoflow.acquisition.source_settings import ReplaySettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.workflow.commands.inspect import print_orientation

EXCHANGE = np.array([[0, 1], [1, 0]])
WAYS = list(itertools.product((False, True), (1, -1), (1, -1)))
"""Exchanged; then the signs of y and x."""
FRAMES_NEAR_THE_MIDDLE = 120


def matrix(exchanged, sign_y, sign_x):
    """What a way makes of a vector (y, x)."""
    return np.diag([sign_y, sign_x]) @ (EXCHANGE if exchanged else np.eye(2, dtype=int))


@cache
def star(path):
    """Frames, positions in metres (n, 2) as (y, x), and geometry of a part of the measured scan."""
    with closing(open_scan(ReplaySettings(path=path))) as scan:
        first = scan.perspective(0)
        away = np.linalg.norm(first.positions_px - first.positions_px.mean(axis=0), axis=1)
        chosen = np.sort(np.argsort(away)[:FRAMES_NEAR_THE_MIDDLE])
        counts = np.array([first.read(index, index + 1)[0] for index in chosen.tolist()])
        return counts, first.positions_px[chosen] * first.geometry.object_pixel_size_m, first.geometry


def write_star(target, source, frames_way, positions_way):
    counts, where_m, geometry = star(source)
    exchanged, *signs = frames_way
    if exchanged:
        counts = counts.transpose(0, 2, 1)
    for axis, sign in enumerate(signs, start=1):
        if sign < 0:
            counts = np.roll(np.flip(counts, axis), 1, axis)  # pixel (N // 2, N // 2) stays where it is
    where_m = where_m @ matrix(*positions_way).T
    with h5py.File(target, "w") as file:
        file["cxi_version"] = 160
        file["entry_1/data_1/data"] = counts
        file["entry_1/data_1/translation"] = np.column_stack([where_m[:, ::-1], np.zeros(len(where_m))])
        detector, beam = "entry_1/instrument_1/detector_1", "entry_1/instrument_1/source_1"
        file[f"{detector}/distance"] = geometry.detector_distance_m
        file[f"{detector}/y_pixel_size"], file[f"{detector}/x_pixel_size"] = geometry.detector_pixel_size_m
        file[f"{beam}/energy"] = geometry.energy_eV * 1.602176634e-19


def settings_in(line):
    found = re.findall(r"--set source\.preprocess\.(\w+)=(\S+)", line)
    assert found
    return {name: json.loads(value) for name, value in found}


@pytest.mark.parametrize("positions_way", WAYS, ids=str)
@pytest.mark.parametrize("frames_way", WAYS, ids=str)
def test_the_measured_star_lying_otherwise_is_put_right(measured_data, tmp_path, capsys, frames_way, positions_way):
    path = tmp_path / "star.cxi"
    write_star(path, measured_data / "siemens_star.cxi", frames_way, positions_way)
    with closing(open_scan(ReplaySettings(path=path))) as scan:
        print_orientation(scan)
    lines = capsys.readouterr().out.splitlines()
    of_frames, of_positions = matrix(*frames_way), matrix(*positions_way)
    half_turn = next(line for line in lines if "both axes mirrored" in line)
    assert "agree just as well" in half_turn
    if abs(np.trace(of_frames @ of_positions.T)) == 2:  # as they are, or turned by 180°, which nothing can tell
        assert "Frames and positions fit together as they are." in lines
        return
    frame_settings = settings_in(next(line for line in lines if line.startswith("Recommended: ")))
    position_settings = settings_in(next(line for line in lines if line.startswith("or, the same: ")))
    assert frame_settings.keys() <= {"transpose", "flip_y", "flip_x"}
    assert position_settings.keys() <= {"swap_positions", "position_sign_y", "position_sign_x"}
    turned_frames = matrix(
        frame_settings.get("transpose", False),
        -1 if frame_settings.get("flip_y") else 1,
        -1 if frame_settings.get("flip_x") else 1,
    )
    turned_positions = matrix(
        position_settings.get("swap_positions", False),
        position_settings.get("position_sign_y", 1),
        position_settings.get("position_sign_x", 1),
    )
    for frames, positions in ((turned_frames @ of_frames, of_positions), (of_frames, turned_positions @ of_positions)):
        assert abs(np.trace(frames @ positions.T)) == 2
