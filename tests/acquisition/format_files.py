"""Scan files of several formats, as the programs that they come from write them."""

import h5py
import hdf5plugin
import numpy as np
from scan_files import DISTANCE_M, ENERGY_EV, PIXEL_M, MeasuredScan, object_pixel_m, probe_of

SCAN = MeasuredScan()
Y_M, X_M = SCAN.positions_m.T
GEOMETRY = {"energy_eV": ENERGY_EV, "detector_distance_m": DISTANCE_M, "detector_pixel_size_m": PIXEL_M}
SQUARE = MeasuredScan(shape=(16, 16))
SQUARE_PIXEL_M = 1.239841984e-6 / ENERGY_EV * DISTANCE_M / (16 * 75e-6)


def write_eiger(folder, *, parts=3):
    """A master file as the filewriter of the detector writes it, data files compressed with bitshuffle and LZ4."""
    path = folder / "run_12_master.h5"
    with h5py.File(path, "w") as master:
        first = 1
        for number, frames in enumerate(np.array_split(SCAN.frames.astype(np.uint32), parts), start=1):
            name = f"run_12_data_{number:06d}.h5"
            with h5py.File(folder / name, "w") as data:
                dataset = data.create_dataset(
                    "entry/data/data", data=frames, chunks=(1, *SCAN.shape), **hdf5plugin.Bitshuffle(cname="lz4")
                )
                dataset.attrs["image_nr_low"], dataset.attrs["image_nr_high"] = first, first + len(frames) - 1
            first += len(frames)
            master[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(name, "/entry/data/data")
        detector = master.create_group("entry/instrument/detector")
        detector["y_pixel_size"], detector["x_pixel_size"], detector["detector_distance"] = *PIXEL_M, DISTANCE_M * 1e3
        detector["detector_distance"].attrs["units"] = b"mm"
        detector["beam_center_y"], detector["beam_center_x"] = 5.0, 12.0
        mask = np.zeros(SCAN.shape, np.uint32)
        mask[4, 7], mask[9, 20] = 1, 8
        detector["detectorSpecific/pixel_mask"] = mask
        detector["detectorSpecific/nimages"], detector["detectorSpecific/ntrigger"] = 1, 30
        master["entry/instrument/beam/incident_wavelength"] = 12398.41984 / ENERGY_EV
        master["entry/instrument/beam/incident_wavelength"].attrs["units"] = "angstrom"
    return path


def write_ptychodus(folder, *, names=("product.h5", "diffraction.h5"), old=False):
    rng = np.random.default_rng(3)
    order = rng.permutation(25)
    product, diffraction = (folder / name for name in names)
    with h5py.File(diffraction, "w") as file:
        file["patterns"], file["indexes"] = SCAN.frames[order], order + 40
        file["bad_pixels"] = np.zeros(SCAN.shape, bool)
        if not old:
            file["patterns"].attrs["detector_pixel_height_m"] = PIXEL_M[0]
            file["patterns"].attrs["detector_pixel_width_m"] = PIXEL_M[1]
    with h5py.File(product, "w") as file:
        file.attrs["probe_energy_eV" if old else "photon_energy_eV"] = ENERGY_EV
        file.attrs["detector_object_distance_m"], file.attrs["tomography_angle_deg"] = DISTANCE_M, 31.0
        kept = np.delete(np.arange(25), 13)
        file["probe_position_indexes"] = np.append(kept + 40, 900)
        file["probe_position_y_m"], file["probe_position_x_m"] = np.append(Y_M[kept], 0), np.append(X_M[kept], 0)
        file["probe"] = probe_of(SCAN.shape, modes=2)[np.newaxis]
        for name, size in zip(("pixel_height_m", "pixel_width_m"), object_pixel_m(SCAN.shape), strict=True):
            file["probe"].attrs[name] = size
    return product, diffraction, [number for number in order if number != 13]


def write_nexus(path, *, definition="NXptycho", frames=None):
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry_1")
        entry["definition"] = definition
        detector = entry.create_group("instrument_1/detector_1")
        detector["data"] = SCAN.frames if frames is None else frames
        detector["distance"], detector["y_pixel_size"], detector["x_pixel_size"] = DISTANCE_M, *PIXEL_M
        entry["instrument_1/beam_1/incident_energy"] = ENERGY_EV
        entry["instrument_1/source_1/energy"] = 3e9
        entry["instrument_1/source_1/energy"].attrs["units"] = "eV"
        for number, (name, values) in enumerate((("sample_x", X_M), ("sample_y", Y_M)), start=1):
            entry[f"sample_1/positioner_{number}/name"] = name
            entry[f"sample_1/positioner_{number}/raw_value"] = values * 1e6
            entry[f"sample_1/positioner_{number}/raw_value"].attrs["units"] = "um"


def write_fold_slice(folder):
    """A pair of files, of square frames."""
    with h5py.File(folder / "scan_dp.hdf5", "w") as file:
        file["dp"] = SQUARE.frames
    with h5py.File(folder / "scan_para.hdf5", "w") as file:
        file["ppY"], file["ppX"] = SQUARE.positions_px.T[..., np.newaxis] * SQUARE_PIXEL_M
        file["lambda"], file["dx"], file["angle"] = [[1.239841984e-6 / ENERGY_EV]], [[SQUARE_PIXEL_M]], [[7.5]]
