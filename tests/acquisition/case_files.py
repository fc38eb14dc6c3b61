"""Files of every format and with every known fault, and what `ptychoflow inspect` must say of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import damage
import h5py
import numpy as np
import tifffile
from asymmetric_scan import N, frames, translation, write_scan
from file_case import answered, refused
from format_files import GEOMETRY, SCAN, write_eiger, write_fold_slice, write_nexus, write_ptychodus
from scan_files import (
    DETECTOR,
    DISTANCE_M,
    ENERGY_EV,
    FRAMES,
    SOURCE,
    TRANSLATION,
    probe_of,
    replace_dataset,
    write_cxi,
)

from ptychoflow.acquisition.readers.layout import ANGLE_DEG, OBJECT, OBJECT_ORIGIN_PX, entry_name
from ptychoflow.acquisition.readers.layout import ENERGY_EV as RECORDED_ENERGY_EV

GAP = np.zeros((N, N), bool)
GAP[:, 40:43] = GAP[20:22] = True
WHERE = {"positions.file": "where.npy", "positions.columns": "yx", "positions.unit": "m"}
KNOWN = {f"geometry.{key}": value for key, value in GEOMETRY.items()}


# Writers. Those of scans of 144 frames of 64 x 64 pixels end in "scan", those of small ones do not.


def _scan(**changes: Any) -> Callable[[Path], Path]:
    return lambda folder: write_scan(folder / "scan.cxi", **changes)


def _counts(change: Callable[[np.ndarray], Any], dtype: str = "uint16", **more: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        counts = frames().astype(dtype)
        changed = change(counts)
        return write_scan(folder / "scan.cxi", counts if changed is None else changed, dtype=dtype, **more)

    return write


def _set(place: Any, value: Any) -> Callable[[np.ndarray], None]:
    return lambda counts: counts.__setitem__(place, value)


def _moved(change: Callable[[np.ndarray], Any], **more: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        positions = translation().copy()
        changed = change(positions)
        return write_scan(folder / "scan.cxi", positions_m=positions if changed is None else changed, **more)

    return write


def _cxi(*changes: tuple[str, Any] | tuple[str, Any, Any]) -> Callable[[Path], Path]:
    """A small CXI file in which datasets are replaced: name, value, and a unit if it has one."""

    def write(folder: Path) -> Path:
        path = folder / "scan.cxi"
        write_cxi(path)
        for name, value, *unit in changes:
            replace_dataset(path, name, value)
            if unit:
                with h5py.File(path, "a") as file:
                    file[name].attrs["units"] = unit[0]
        return path

    return write


def _edited(write: Callable[[Path], Path], edit: Callable[[h5py.File], Any]) -> Callable[[Path], Path]:
    def both(folder: Path) -> Path:
        path = write(folder)
        with h5py.File(path, "a") as file:
            edit(file)
        return path

    return both


def _kind(kind: str) -> Callable[[Path], Path]:
    return lambda folder: damage.write_scan(kind, folder)[0]


def _recording(*changes: tuple[str, Any], perspective: int = 1) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path, _ = damage.write_scan("recording", folder)
        for name, value in changes:
            replace_dataset(path, f"{entry_name(perspective)}/{name}", value)
        return path

    return write


def _without(write: Callable[[Path], Path], name: str) -> Callable[[Path], Path]:
    def both(folder: Path) -> Path:
        path = write(folder)
        (folder / name).unlink()
        return path

    return both


def _bytes(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def _cut_short(write: Callable[[Path], Path], part: float) -> Callable[[Path], Path]:
    def both(folder: Path) -> Path:
        path = write(folder)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
        return path

    return both


def _tiff_folder(folder: Path) -> Path:
    np.save(folder / "where.npy", SCAN.positions_m)
    for number, frame in enumerate(SCAN.frames):
        tifffile.imwrite(folder / f"frame_{number}.tif", frame)
    return folder


def _npy_folder(folder: Path) -> Path:
    np.save(folder / "where.npy", SCAN.positions_m)
    for number, frame in enumerate(SCAN.frames):
        np.save(folder / f"frame_{number}.npy", frame)
    return folder


def _npy(folder: Path) -> Path:
    np.save(folder / "where.npy", SCAN.positions_m)
    np.save(folder / "scan.npy", SCAN.frames)
    return folder / "scan.npy"


def _nexus(folder: Path) -> Path:
    write_nexus(folder / "scan.nxs")
    return folder / "scan.nxs"


def _ptychodus(folder: Path) -> Path:
    return write_ptychodus(folder)[0]


def _fold_slice(folder: Path) -> Path:
    write_fold_slice(folder)
    return folder / "scan_dp.hdf5"


def _pickled(folder: Path) -> Path:
    np.savez(folder / "scan.npz", data=np.array([{}, {}], object), scan=np.zeros((2, 2)))
    return folder / "scan.npz"


def _virtual(name: str, source: str, kept: int) -> Callable[[h5py.File], None]:
    """Make a dataset virtual, all of it after the first `kept` rows in a file that is not there."""

    def edit(file: h5py.File) -> None:
        values = file[name][...]
        del file[name]
        layout = h5py.VirtualLayout(values.shape, values.dtype)
        if kept:
            with h5py.File(Path(file.filename).with_name("first.h5"), "w") as part:
                part["data"] = values[:kept]
            layout[:kept] = h5py.VirtualSource("first.h5", "data", values[:kept].shape)
        layout[kept:] = h5py.VirtualSource(source, "data", values[kept:].shape)
        file.create_virtual_dataset(name, layout)

    return edit


def _linked(name: str, link: Any) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[name]
        file[name] = link

    return edit


def _near_field(file: h5py.File) -> None:
    # The same object pixel, of a detector whose pixels are so fine that the far field is farther away.
    for name in ("x_pixel_size", "y_pixel_size"):
        file[f"{DETECTOR}/{name}"][...] = 0.5e-6
    file[f"{DETECTOR}/distance"][...] = 2.0 / 150


def _damaged_chunk(folder: Path) -> Path:
    path = _cxi()(folder)
    with h5py.File(path, "a") as file:
        counts = file[FRAMES][...]
        del file[FRAMES]
        dataset = file.create_dataset(FRAMES, data=counts, chunks=(1, 16, 24), compression="gzip")
        chunk = dataset.id.get_chunk_info(12)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * 60)
    return path


def _angles(*angles: float | None) -> Callable[[Path], list[Path]]:
    """Recordings of one perspective each; None for a CXI file, which says no angle."""

    def write(folder: Path) -> list[Path]:
        paths = []
        for number, angle in enumerate(angles):
            if angle is None:
                paths.append(folder / f"scan_{number}.cxi")
                write_cxi(paths[-1])
                continue
            place = folder / str(number)
            path, _ = damage.write_scan("recording", place)
            with h5py.File(path, "a") as file:
                del file[entry_name(1)]
                file[f"{entry_name(0)}/{ANGLE_DEG}"][...] = angle
            paths.append(path.rename(place / f"scan_{number}.h5"))
        return paths

    return write


def _several(*writers: Callable[[Path], Path]) -> Callable[[Path], list[Path]]:
    def write(folder: Path) -> list[Path]:
        places = [folder / str(number) for number in range(len(writers))]
        for place in places:
            place.mkdir()
        return [write(place) for write, place in zip(writers, places, strict=True)]

    return write


def _per_frame_mask() -> np.ndarray:
    mask = np.zeros((30, 16, 24), np.uint8)
    mask[:, 2, 3] = mask[-1, 5, 6] = 1
    return mask


def _information_bits() -> np.ndarray:
    mask = np.full((16, 24), 0x1000 | 0x800, np.uint32)
    mask[3, 5], mask[4, 6] = 0x1000 | 0x8, 0x200
    return mask


FORMATS = (
    answered("CXI", _scan(), "144 of 64 × 64 px in 1 perspective", "8 keV", "2 m", "diameter of 46% of the field"),
    answered("CXI with its probe", _scan(with_probe=True), "144 of 64 × 64 px", "1 mode"),
    answered("recording", _kind("recording"), "12 of 16 × 16 px in 2 perspectives"),
    answered(
        "Eiger master", _kind("eiger"), "Eiger master", "25 of 16 × 24 px", "set for 30 images; there are 25", **WHERE
    ),
    refused("Eiger without positions", write_eiger, "the file has no positions", "source.positions.file"),
    refused(
        "Eiger, a data file missing",
        _without(write_eiger, "run_12_data_000002.h5"),
        "run_12_data_000002.h5, which is missing",
    ),
    answered("ptypy .ptyd", _kind("ptyd"), "ptyd", "25 of 16 × 24 px", "8 keV", "2 m"),
    refused(
        ".ptyd without distance",
        _edited(_kind("ptyd"), _linked("meta/distance", 0.0)),
        "the file has no detector distance",
        "source.geometry.detector_distance_m",
    ),
    answered("ptychodus pair", _ptychodus, "24 of 16 × 24 px", "1 of 25 frames have no position", "31°"),
    refused(
        "ptychodus product alone",
        _without(_ptychodus, "diffraction.h5"),
        "another file must hold the frames",
        "source.companion",
    ),
    refused("fold_slice pair", _fold_slice, "source.geometry.detector_pixel_size_m"),
    answered(
        "fold_slice pair, pixel given", _fold_slice, "25 of 16 × 16 px", "7.5°", geometry__detector_pixel_size_m=75e-6
    ),
    refused("tike npz", _kind("tike"), "the file has no photon energy", "source.geometry.energy_eV"),
    answered("tike npz, geometry given", _kind("tike"), "25 of 16 × 24 px", **KNOWN),
    answered(
        "PtychoNN npz",
        _kind("ptychonn"),
        "25 of 16 × 16 px",
        geometry__energy_eV=ENERGY_EV,
        geometry__detector_pixel_size_m=75e-6,
    ),
    refused("npz of Python objects", _pickled, "Python objects (pickle), which are not read"),
    answered("npy and positions", _npy, "25 of 16 × 24 px", **KNOWN, **WHERE),
    refused("npy without positions", _npy, "the file has no positions", **KNOWN),
    answered("npy folder", _npy_folder, "25 of 16 × 24 px", "where.npy has shape (25, 2)", **KNOWN, **WHERE),
    answered("TIFF of many pages", _kind("tiff"), "25 of 16 × 24 px", **KNOWN, **WHERE),
    answered("TIFF folder", _tiff_folder, "25 of 16 × 24 px", **KNOWN, **WHERE),
    refused("NXptycho", _nexus, "source.frame_axes=yx or xy"),
    answered("NXptycho, axes given", _nexus, "25 of 16 × 24 px", "8000 can only be eV", frame_axes="yx"),
    answered("HXN by its map", _kind("hxn"), "25 of 16 × 16 px", "12.5°", dataset_map="hxn"),
    refused("HXN by another map", _kind("hxn"), "lamni", dataset_map="lamni"),
    refused("unknown HDF5", _kind("unknown"), "Datasets with frames may be: /measured/images"),
    refused("packed file", _bytes("scan.h5.bz2", b"BZh9"), "the file is packed; unpack it first"),
    refused("empty folder", lambda folder: folder, "this is a folder"),
    refused("no such file", lambda folder: folder / "scan.cxi", "scan.cxi", "there is no such file"),
    refused("file of no bytes", _bytes("scan.h5", b""), "scan.h5", "empty"),
    refused("text", _bytes("scan.h5", b"# a log\n"), "scan.h5"),
    refused("copied half", _cut_short(_scan(), 0.5), "scan.cxi", "truncated"),
)

VALUES = (
    answered("gaps, uint16", _counts(_set(np.s_[:, GAP], 65535)), "314 pixels hold 65535 in every frame"),
    answered("gaps, uint32", _counts(_set(np.s_[:, GAP], 2**32 - 1), "uint32"), "314 pixels hold 4294967295 in every"),
    answered("gaps, int32", _counts(_set(np.s_[:, GAP], 2**31 - 1), "int32"), "314 pixels hold 2147483647 in every"),
    answered("gaps, -1", _counts(_set(np.s_[:, GAP], -1), "int32"), "314 pixels"),
    answered("gaps, NaN", _counts(_set(np.s_[:, GAP], np.nan), "float32"), "314 pixels"),
    answered("hot pixel", _counts(_set(np.s_[:, 50, 50], 500_000), "int32"), "1 pixels are hot, at (50, 50)", "46%"),
    answered(
        "a frame of NaN", _counts(_set(10, np.nan), "float32"), "1 of 144 frames show nothing", "finite value): 10"
    ),
    answered("a frame of infinity", _counts(_set(10, np.inf), "float32"), "1 of 144 frames show nothing"),
    answered(
        "saturated frames", _counts(_set([3, 7], 65535)), "2 of 144 frames show nothing (2 saturated all over): 3, 7"
    ),
    answered("an aborted scan's frames", _counts(_set(np.s_[120:], 0)), "24 of 144 frames show nothing", "120 to 143"),
    refused("all frames zero", _counts(_set(np.s_[:], 0)), "none of the 144 frames looked at shows anything"),
    refused(
        "all frames zero, with a probe",
        _counts(_set(np.s_[:], 0), with_probe=True),
        "none of the 144 frames looked at shows anything",
    ),
    refused("all frames saturated", _counts(_set(np.s_[:], 65535), with_probe=True), "shows anything"),
    refused(
        "all frames NaN", _counts(_set(np.s_[:], np.nan), "float32"), "shows anything (144 without a finite value)"
    ),
    answered("a chunk damaged", _damaged_chunk, "1 of 30 frames show nothing (1 that cannot be read): 12"),
    answered(
        "positions end in NaN", _moved(_set(np.s_[120:], np.nan)), "last 24 of 144 positions", "120 to 143 are set"
    ),
    answered("positions end in zeros", _moved(_set(np.s_[120:], 0)), "last 24 of 144 positions"),
    refused("a position is NaN", _moved(_set((17, 0), np.nan)), "source.drop_frames=[17]"),
    refused("all positions NaN", _moved(_set(np.s_[:], np.nan)), "position"),
    refused("all positions the same", _moved(_set(np.s_[:], 1e-6)), "position"),
    answered(
        "a position a metre away", _moved(_set((7, 0), 1.0)), "1 of 144 positions lie far", "frames 7 are set aside"
    ),
    refused("half of them a metre away", _moved(_set(np.s_[::2, 0], 1.0)), "object pixels, an image of"),
    refused("steps 1000 times too small", _moved(lambda p: p * 1e-3), "source.preprocess.position_scale=1000"),
    refused("steps 1000 times too large", _moved(lambda p: p * 1e3), "source.preprocess.position_scale=0.001"),
    refused(
        "more positions than frames", _counts(lambda counts: counts[:140]), "140 frames but 144 positions", "=first"
    ),
    answered(
        "more positions than frames, set",
        _counts(lambda counts: counts[:140]),
        "140 of 64 × 64 px",
        "4 positions at the end",
        frames="first",
    ),
    refused("more frames than positions", _moved(lambda p: p[:140]), "144 frames but 140 positions", "=first"),
    answered("a grid of frames", _counts(lambda counts: counts.reshape(12, 12, N, N)), "144 of 64 × 64 px"),
    answered("mask inverted", _scan(mask=(~GAP).astype("u4")), "ignores 92% of the pixels", "invert_mask=true"),
    refused("mask of everything", _scan(mask=np.ones((N, N), "u4")), "the mask leaves no pixel", "the other way round"),
    answered(
        "mask of information", _cxi((f"{DETECTOR}/mask", _information_bits())), "Bits 0x1800 of the mask mark no bad"
    ),
    answered(
        "mask per frame", _cxi((f"{DETECTOR}/mask", _per_frame_mask())), "1 pixels are masked in some frames only"
    ),
    refused("mask of another size", _cxi((f"{DETECTOR}/mask", np.zeros((3, 4), "u1"))), "mask"),
    answered("distance in mm", _cxi((f"{DETECTOR}/distance", DISTANCE_M * 1e3, b"MM")), "distance 2 m"),
    answered("energy in keV", _cxi((f"{SOURCE}/energy", 8.0, "keV")), "8 keV"),
    answered("energy in MeV", _cxi((f"{SOURCE}/energy", 0.008, ["MeV"])), "8 keV"),
    refused("unit that is none", _cxi((f"{DETECTOR}/distance", DISTANCE_M, "parsec")), "parsec"),
    refused("energy negative", _cxi((f"{SOURCE}/energy", -1.28e-15)), "the photon energy is -"),
    refused("energy NaN", _cxi((f"{SOURCE}/energy", np.nan)), "the photon energy is nan"),
    answered("energy per frame, constant", _cxi((f"{SOURCE}/energy", np.full(30, 8000.0), "eV")), "8 keV"),
    refused("energy per frame, varying", _cxi((f"{SOURCE}/energy", np.linspace(7e3, 8e3, 30), "eV")), "but it varies"),
    refused("no energy", _cxi((f"{SOURCE}/energy", None)), "source.geometry.energy_eV"),
    refused("distance zero", _cxi((f"{DETECTOR}/distance", 0.0)), "the detector distance is 0"),
    refused("near field", _edited(_scan(), _near_field), "the Fresnel number of the estimated probe is"),
    answered(
        "off centre", _counts(lambda counts: np.roll(counts, (9, -6), (1, 2))), "off the middle", "centre_px=[41,26]"
    ),
    answered("corner", _counts(lambda counts: np.fft.ifftshift(counts, axes=(1, 2))), "zero_frequency_in_corner=true"),
    answered(
        "mirrored along x", _counts(lambda counts: np.roll(counts[..., ::-1], 1, 2)), "source.preprocess.flip_x=true"
    ),
    answered(
        "mirrored along y",  # which differs from the case before by half a turn: without a probe nobody can tell
        _counts(lambda counts: np.roll(counts[:, ::-1], 1, 1)),
        "Frames and positions do not fit together as they are",
    ),
    answered(
        "mirrored along y, with a probe",
        _counts(lambda counts: np.roll(counts[:, ::-1], 1, 1), with_probe=True),
        "source.preprocess.flip_y=true",
        orientation=True,
    ),
    answered("transposed", _counts(lambda counts: counts.transpose(0, 2, 1)), "source.preprocess.transpose=true"),
    answered("positions exchanged", _moved(lambda p: p[:, [1, 0, 2]]), "source.preprocess.swap_positions=true"),
    answered("x of positions negated", _moved(lambda p: p * (-1, 1, 1)), "source.preprocess.position_sign_x=-1"),
    answered(
        "frames that show noise",
        _counts(lambda counts: np.random.default_rng(0).poisson(counts.mean(axis=0), counts.shape)),
        "The estimated probe is uncertain",
    ),
    answered("probe of 4 axes", _cxi((f"{SOURCE}/illumination", probe_of(modes=2)[np.newaxis])), "2 modes"),
    refused("probe of zeros", _cxi((f"{SOURCE}/illumination", 0 * probe_of())), "probe"),
    refused("probe of NaN", _cxi((f"{SOURCE}/illumination", np.nan * probe_of())), "probe"),
    refused(
        "probe larger", _cxi((f"{SOURCE}/illumination", probe_of((32, 48)))), "source.probe=same_pixel or same_field"
    ),
    answered("probe set aside", _scan(with_probe=True), "The file's probe is left out, as set", "46%", probe="ignore"),
    refused("recording, energy negative", _recording((RECORDED_ENERGY_EV, -8000.0)), "the photon energy is -8000"),
    answered("recording, angle NaN", _recording((ANGLE_DEG, np.nan)), "angle is no number; it is taken as 0"),
    answered(
        "recording, origin NaN",
        _recording((OBJECT_ORIGIN_PX, [np.nan, 0.0])),
        "ground truth is left out: it does not lie where the positions are",
    ),
    answered(
        "recording, object too small",
        _recording((OBJECT, np.ones((4, 4), np.complex64))),
        "ground truth is left out: it does not lie where the positions are",
    ),
)

LINKS = (
    refused(
        "half of a virtual dataset missing",
        _edited(_scan(), _virtual(FRAMES, "moved_away.h5", 72)),
        "frames 72 to 143 are kept in",
        "moved_away.h5, which is missing",
        "source.drop_frames=[[72,143]]",
    ),
    answered(
        "half of it missing, dropped",
        _edited(_scan(), _virtual(FRAMES, "moved_away.h5", 72)),
        "72 of 64 × 64 px",
        "72 frames are left out, as set",
        drop_frames=[[72, 143]],
    ),
    refused(
        "virtual positions missing", _edited(_scan(), _virtual(TRANSLATION, "motors.h5", 0)), "motors.h5, which is"
    ),
    refused("virtual, of itself", _edited(_scan(), _virtual(FRAMES, "scan.cxi", 0)), "scan.cxi"),
    refused(
        "external link dangles",
        _edited(_scan(), _linked("entry_1", h5py.ExternalLink("gone.cxi", "/entry_1"))),
        "/entry_1 links to",
        "gone.cxi, which is missing",
    ),
    refused("soft link dangles", _edited(_scan(), _linked(FRAMES, h5py.SoftLink("/gone"))), "/gone"),
    refused("link to itself", _edited(_scan(), _linked(FRAMES, h5py.SoftLink(f"/{FRAMES}"))), FRAMES),
    answered(
        "an empty entry", _edited(_scan(), lambda file: file.create_group("entry_2/data_1")), "entry_2: no frames in"
    ),
)

SEVERAL = (
    answered("by angle", _angles(30.0, -10.0, 5.0), "in 3 perspectives", "order of their angle", "0 │ -10°", "2 │ 30°"),
    answered("by name, an angle missing", _several(_cxi(), _cxi()), "in 2 perspectives", "in the order of their name"),
    refused("frames of different size", _several(_cxi(), _scan()), "(64, 64) pixels", "(16, 24)"),
    refused("one cut short", _several(_cxi(), _cut_short(_cxi(), 0.5)), "1/scan.cxi", "truncated"),
    refused("one without frames", _several(_cxi(), _cxi((FRAMES, None))), "1/scan.cxi"),
    refused(
        "one that is not there", lambda folder: [_cxi()(folder), folder / "other.cxi"], "other.cxi", "no such file"
    ),
    refused("the same twice", lambda folder: [_cxi()(folder)] * 2, "twice"),
)

CASES = FORMATS + VALUES + LINKS + SEVERAL
