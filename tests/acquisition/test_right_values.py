"""Unusual files, each with what it takes to read it: what is retrieved is the object that was simulated beside us.

The refusals, notes and counts are asserted where each kind is tested; here it is the outcome.
"""

import h5py
import numpy as np
import pytest
from asymmetric_scan import (
    DISTANCE_M,
    ENERGY_J,
    PIXEL_M,
    RIGHT,
    SIDE,
    N,
    correlation,
    frames,
    probe,
    translation,
    write_scan,
)
from scan_files import DETECTOR, FRAMES, SOURCE, TRANSLATION, opened, refusal, replace_dataset

GEOMETRY = {"energy_eV": 8000.0, "detector_distance_m": DISTANCE_M, "detector_pixel_size_m": PIXEL_M}
GAP = np.zeros((N, N), bool)
GAP[:, 40:43] = GAP[20:22] = True


def changed(path, name, value, **attributes):
    write_scan(path)
    replace_dataset(path, name, value)
    with h5py.File(path, "a") as file:
        file[name].attrs.update(attributes)


def distance_in_mm(path):
    changed(path, f"{DETECTOR}/distance", 1e3 * DISTANCE_M, units=np.array([b"MM"]))


def energy_in_kev_for_every_frame(path):
    changed(path, f"{SOURCE}/energy", np.full(SIDE * SIDE, 8.0), units="keV")


def energy_in_electronvolt(path):
    changed(path, f"{SOURCE}/energy", ENERGY_J / 1.602176634e-19, units="eV")


def pixel_size_in_micrometres(path):
    changed(path, f"{DETECTOR}/x_pixel_size", 1e6 * PIXEL_M, units="µm")


def positions_in_nanometres(path):
    changed(path, TRANSLATION, 1e9 * translation(), units="nm")


def positions_a_thousand_times_too_small(path):
    changed(path, TRANSLATION, 1e-3 * translation())
    said = refusal(path)
    assert "position_scale=1000)" in said
    return {"preprocess": {"position_scale": 1000}}


def hot_pixel(path):
    counts = frames().astype("int32")
    counts[:, 50, 50] = 500_000
    write_scan(path, counts, dtype="int32")


def bits_that_only_inform(path):
    status = np.where(GAP, 0x08, 0x1000).astype("u4")
    counts = frames().astype("uint16")
    counts[:, GAP] = 60_000
    write_scan(path, counts, mask=status[np.newaxis])


def scan_grid(path):
    write_scan(path, frames().reshape(SIDE, SIDE, N, N))


def too_many_positions(path):
    write_scan(path, frames()[:140])
    assert "source.frames=first" in refusal(path)
    return {"frames": "first"}


def frames_whose_source_is_missing(path):
    """Of a virtual dataset: they would read as the value that fills it."""
    write_scan(path)
    with h5py.File(path.with_name("part.h5"), "w") as part:
        part["data"] = frames()[:120].astype("u2")
    layout = h5py.VirtualLayout((144, N, N), "u2")
    layout[:120] = h5py.VirtualSource("part.h5", "data", (120, N, N))
    layout[120:] = h5py.VirtualSource("moved.h5", "data", (24, N, N))
    with h5py.File(path, "a") as file:
        del file[FRAMES]
        file.create_virtual_dataset(FRAMES, layout)
    assert "moved.h5" in refusal(path)
    return {"drop_frames": [[120, 143]]}


def probe_of_two_parts(path):
    packed = np.zeros((N, N), [("real", "f4"), ("imag", "f4")])
    packed["real"], packed["imag"] = probe().real, probe().imag
    changed(path, f"{SOURCE}/illumination", packed)


def probe_with_modes_for_every_frame(path):
    changed(path, f"{SOURCE}/illumination", np.repeat(probe()[np.newaxis, np.newaxis], 3, axis=0))


def probe_in_a_larger_frame(path):
    changed(path, f"{SOURCE}/illumination", np.pad(probe(), 16))
    assert "source.probe=same_pixel" in refusal(path)
    return {"probe": "same_pixel"}


def detector_that_is_mounted_otherwise(path):
    """Rows along the laboratory's x, columns along y: the frames are stored transposed."""
    write_scan(path, frames().transpose(0, 2, 1))
    with h5py.File(path, "a") as file:
        file[f"{DETECTOR}/basis_vectors"] = [[-PIXEL_M, 0.0, 0.0], [0.0, -PIXEL_M, 0.0]]


def aborted_scan(path):
    counts, where_m = frames().copy(), translation()
    counts[120:], where_m[120:] = 0, 0
    write_scan(path, counts, positions_m=where_m)


def npy_and_text(path):
    folder = path.with_suffix(".npy")
    np.save(folder, frames().astype("u2"))
    np.savetxt(path.with_name("where.txt"), translation()[:, :2] * 1e6, header="x y")
    positions = {"file": "where.txt", "column_x": "x", "column_y": "y", "unit": "um"}
    return {"path": folder, "positions": positions, "geometry": GEOMETRY}


def zero_frequency_in_the_corner_of_an_archive(path):
    """As tike writes it: positions in object pixels."""
    archive = path.with_suffix(".npz")
    positions_px = translation()[:, 1::-1] / (1.5498025e-10 * DISTANCE_M / (N * PIXEL_M))
    np.savez(archive, data=np.fft.ifftshift(frames(), axes=(1, 2)), scan=positions_px, probe=probe()[np.newaxis])
    return {"path": archive, "geometry": GEOMETRY}


def ptyd_in_chunks(path):
    target = path.with_suffix(".ptyd")
    with h5py.File(target, "w") as file:
        for number, rows in enumerate(np.array_split(np.arange(144), 5)):
            chunk = file.create_group(f"chunks/{number}")
            chunk["data"], chunk["indices"], chunk["positions"] = frames()[rows], rows, translation()[rows, 1::-1]
        file["meta/energy"], file["meta/distance"], file["meta/psize"] = 8.0, DISTANCE_M, PIXEL_M
    return {"path": target}


KINDS = [
    distance_in_mm,
    energy_in_kev_for_every_frame,
    energy_in_electronvolt,
    pixel_size_in_micrometres,
    positions_in_nanometres,
    positions_a_thousand_times_too_small,
    hot_pixel,
    bits_that_only_inform,
    scan_grid,
    too_many_positions,
    frames_whose_source_is_missing,
    probe_of_two_parts,
    probe_with_modes_for_every_frame,
    probe_in_a_larger_frame,
    detector_that_is_mounted_otherwise,
    aborted_scan,
    npy_and_text,
    zero_frequency_in_the_corner_of_an_archive,
    ptyd_in_chunks,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_object_is_found(tmp_path, kind):
    settings = {"path": tmp_path / "scan.cxi"}
    settings |= kind(settings["path"]) or {}
    scan = opened(**settings)
    assert correlation(scan.perspective(0)) > RIGHT
    assert not any("do not fit together" in note or "off the middle" in note for note in scan.notes)
