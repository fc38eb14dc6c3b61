"""Scans of every format that is read, and ways to damage them: bytes, HDF5 objects, headers of NumPy arrays."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from format_files import (
    GEOMETRY,
    SCAN,
    SQUARE,
    SQUARE_PIXEL_M,
    write_eiger,
    write_fold_slice,
    write_nexus,
    write_ptychodus,
)
from scan_files import DISTANCE_M, ENERGY_EV, PIXEL_M, probe_of, write_cxi

from ptychoflow.acquisition.readers.hdf5 import HDF5_ERRORS
from ptychoflow.acquisition.simulate import simulate_to_file
from ptychoflow.acquisition.source_settings import SimulationSettings

Settings = dict[str, Any]
POSITIONS = {"file": "where.npy", "columns": "yx", "unit": "m"}
SIMULATED = SimulationSettings(perspectives=2, frames_per_perspective=6, frame_shape_px=(16, 16), seed=1)


def write_scan(kind: str, folder: Path) -> tuple[Path, Settings]:
    """Write a scan of a kind of `KINDS`; return its file and the settings of [source] that it needs."""
    folder.mkdir(parents=True, exist_ok=True)
    return KINDS[kind](folder)


def _cxi(folder: Path) -> tuple[Path, Settings]:
    write_cxi(folder / "scan.cxi")
    return folder / "scan.cxi", {}


def _nexus(folder: Path) -> tuple[Path, Settings]:
    write_nexus(folder / "scan.nxs")
    return folder / "scan.nxs", {"frame_axes": "yx"}


def _recording(folder: Path) -> tuple[Path, Settings]:
    simulate_to_file(SIMULATED, folder / "recording.h5")
    return folder / "recording.h5", {}


def _eiger(folder: Path) -> tuple[Path, Settings]:
    np.save(folder / "where.npy", SCAN.positions_m)
    return write_eiger(folder), {"positions": POSITIONS}


def _ptyd(folder: Path) -> tuple[Path, Settings]:
    with h5py.File(folder / "scan.ptyd", "w") as file:
        for number, indices in enumerate(np.array_split(np.arange(25), 3)):
            chunk = file.create_group(f"chunks/{number}")
            chunk["data"], chunk["indices"], chunk["positions"] = (
                SCAN.frames[indices],
                indices,
                SCAN.positions_m[indices],
            )
            chunk["weights"] = np.ones((len(indices), *SCAN.shape), bool)
        file["meta/energy"], file["meta/distance"], file["meta/psize"] = ENERGY_EV / 1e3, DISTANCE_M, PIXEL_M
        file["meta/center"] = [8.0, 12.0]
    return folder / "scan.ptyd", {}


def _ptychodus(folder: Path) -> tuple[Path, Settings]:
    return write_ptychodus(folder)[0], {}


def _fold_slice(folder: Path) -> tuple[Path, Settings]:
    write_fold_slice(folder)
    return folder / "scan_dp.hdf5", {"geometry": {"detector_pixel_size_m": 75e-6}}


def _hxn(folder: Path) -> tuple[Path, Settings]:
    with h5py.File(folder / "scan.h5", "w") as file:
        file["diffamp"] = np.sqrt(SQUARE.frames).astype(np.float64)
        file["points"] = SQUARE.positions_px.T[::-1] * SQUARE_PIXEL_M * 1e6
        file["lambda_nm"], file["z_m"] = 1239.841984 / ENERGY_EV, DISTANCE_M
        file["ccd_pixel_um"], file["angle"] = 75.0, 12.5
    return folder / "scan.h5", {"dataset_map": "hxn"}


def _unknown(folder: Path) -> tuple[Path, Settings]:
    with h5py.File(folder / "unknown.h5", "w") as file:
        file["measured/images"], file["motors/y"], file["motors/x"] = SCAN.frames, *SCAN.positions_m.T
        file["motors/y"].attrs["units"] = "m"
        file["beam/energy"], file["beam/distance"] = ENERGY_EV, DISTANCE_M
    return folder / "unknown.h5", {}


def _tike(folder: Path) -> tuple[Path, Settings]:
    corner = np.fft.ifftshift(SCAN.frames, axes=(1, 2))
    np.savez_compressed(folder / "scan.npz", data=corner, scan=SCAN.positions_px, probe=probe_of()[None, None])
    return folder / "scan.npz", {"geometry": GEOMETRY}


def _ptychonn(folder: Path) -> tuple[Path, Settings]:
    where = SQUARE.positions_px * SQUARE_PIXEL_M
    frames = SQUARE.frames.astype(np.float32)
    np.savez(folder / "scan.npz", reciprocal=frames, real=frames * 1j, position=where, pixelsize=SQUARE_PIXEL_M)
    return folder / "scan.npz", {"geometry": {"energy_eV": ENERGY_EV, "detector_pixel_size_m": 75e-6}}


def _npy(folder: Path) -> tuple[Path, Settings]:
    np.save(folder / "scan.npy", SCAN.frames)
    np.savetxt(folder / "where.txt", SCAN.positions_m * 1e6)
    positions = {"file": "where.txt", "columns": "yx", "unit": "um"}
    return folder / "scan.npy", {"geometry": GEOMETRY, "positions": positions}


def _tiff(folder: Path) -> tuple[Path, Settings]:
    np.save(folder / "where.npy", SCAN.positions_m)
    tifffile.imwrite(folder / "scan.tif", SCAN.frames)
    return folder / "scan.tif", {"geometry": GEOMETRY, "positions": POSITIONS}


KINDS: dict[str, Callable[[Path], tuple[Path, Settings]]] = {
    "cxi": _cxi,
    "nexus": _nexus,
    "recording": _recording,
    "eiger": _eiger,
    "ptyd": _ptyd,
    "ptychodus": _ptychodus,
    "fold_slice": _fold_slice,
    "hxn": _hxn,
    "unknown": _unknown,
    "tike": _tike,
    "ptychonn": _ptychonn,
    "npy": _npy,
    "tiff": _tiff,
}


def damage(path: Path, chance: random.Random) -> str:
    """Damage a file where it lies; return in a few words how."""
    ways: list[Callable[[Path, random.Random], str]] = [_truncate, _flip_bits, _flip_bits, _wild_integers]
    if h5py.is_hdf5(path):
        ways += [_change_hdf5] * 6
    elif path.suffix == ".npz":
        ways += [_change_npz] * 4
    elif path.suffix == ".npy":
        ways += [_change_npy] * 4
    elif path.suffix == ".txt":
        ways += [_change_text] * 4
    return chance.choice(ways)(path, chance)


# Bytes

WILD_INTEGERS = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


def _place(content: bytearray, chance: random.Random) -> int:
    """Return a place in a file; in its headers more often than in its data."""
    end = len(content) if chance.random() < 0.5 else min(len(content), 12_000)
    return chance.randrange(max(end, 1))


def _truncate(path: Path, chance: random.Random) -> str:
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(max(len(content), 1))])
    return "truncated"


def _flip_bits(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        place = _place(content, chance)
        content[place] = chance.choice([0, 1, 127, 255, content[place] ^ (1 << chance.randrange(8))])
    path.write_bytes(content)
    return "bytes changed"


def _wild_integers(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 1, 2])):
        size = chance.choice([2, 4, 8])
        place = _place(content, chance) // size * size
        value = chance.choice(WILD_INTEGERS) % 256**size
        content[place : place + size] = value.to_bytes(size, chance.choice(["little", "big"]))
    path.write_bytes(content)
    return "wild integers"


# HDF5

WILD_NUMBERS = (np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-300, 1e300, -1e30, 1e12, 2.0**63)
WILD_SHAPES = ((0,), (2**40,), (2**62,), (1, 2**31, 2**31), (2**40, 16, 24), (25, 2**20, 2**20), (0, 16, 24), (3,) * 20)
UNITS = ("km", "", "mm", "eV", "keV", "J", "parsec", b"\xff\xfe", np.nan, [1, 2], "µm" * 1000, "deg", "m\nm", "\0")
NAMES = ("énergie", "a" * 500, "units", "new\nline", " ")


def _change_hdf5(path: Path, chance: random.Random) -> str:
    done = []
    with h5py.File(path, "a") as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(chance.choice([1, 1, 1, 2, 3])):
            name = chance.choice(sorted(names))
            change = chance.choice(HDF5_CHANGES)
            with contextlib.suppress(*HDF5_ERRORS, AttributeError):  # what was changed before may be in the way
                change(file, name, chance)
            done.append(f"{change.__name__.strip('_')} {name}")
    return ", ".join(done)


def _remove(file: h5py.File, name: str, _: random.Random) -> None:
    del file[name]


def _wild_values(file: h5py.File, name: str, chance: random.Random) -> None:
    values = _numbers(file, name).astype(np.float64)
    flat = values.reshape(-1)
    if chance.random() < 0.5:
        flat[:] = chance.choice(WILD_NUMBERS)
    elif len(flat):
        for _ in range(chance.choice([1, 3])):
            flat[chance.randrange(len(flat))] = chance.choice(WILD_NUMBERS)
    _put(file, name, values)


def _scaled(file: h5py.File, name: str, chance: random.Random) -> None:
    with np.errstate(all="ignore"):
        _put(file, name, _numbers(file, name) * chance.choice([-1.0, 0.0, 1e-12, 1e-9, 1e-6, 1e3, 1e9, 1e30, 1e300]))


def _wrong_dtype(file: h5py.File, name: str, chance: random.Random) -> None:
    values = _numbers(file, name)
    other: list[Any] = [
        np.full(values.shape, "7.5", "S8"),
        np.zeros(values.shape, [("r", "f8"), ("i", "f8")]),
        np.zeros(values.shape, h5py.special_dtype(vlen=np.int32)),
        np.full(values.shape, "x", h5py.string_dtype()),
        np.zeros(values.shape, h5py.special_dtype(enum=("i", {"no": 0, "yes": 1}))),
        h5py.Empty("f4"),
        "energy",
        np.void(b"raw"),
        file[name].ref,
    ]
    with np.errstate(all="ignore"):
        other += [values.astype(kind) for kind in ("?", "f2", "i1", "c16", ">u8", "u8", ">f4", "i8")]
    _put(file, name, chance.choice(other))


def _other_shape(file: h5py.File, name: str, chance: random.Random) -> None:
    values = _numbers(file, name)
    shapes = [
        values.reshape(-1),
        values[np.newaxis],
        values[..., np.newaxis],
        values.T,
        values[:0] if values.ndim else values,
    ]
    shapes += [values[:-1] if values.ndim else values[np.newaxis, np.newaxis], np.concatenate([values.reshape(-1)] * 2)]
    _put(file, name, chance.choice(shapes))


def _wild_shape(file: h5py.File, name: str, chance: random.Random) -> None:
    shape = chance.choice(WILD_SHAPES)
    kind = chance.choice(["u1", "u2", "f4", "f8", "c8"])
    del file[name]
    file.create_dataset(name, shape=shape, dtype=kind, chunks=tuple(min(side, 4) or 1 for side in shape))


def _dangling(file: h5py.File, name: str, chance: random.Random) -> None:
    links: list[Any] = [h5py.SoftLink("/nowhere"), h5py.SoftLink(f"/{name}"), h5py.ExternalLink("missing.h5", "/data")]
    links += [h5py.ExternalLink(Path(file.filename).name, f"/{name}"), h5py.ExternalLink("/dev/zero", "/data")]
    links += [h5py.SoftLink("/"), h5py.ExternalLink("..", "/")]
    del file[name]
    file[name] = chance.choice(links)


def _virtual(file: h5py.File, name: str, chance: random.Random) -> None:
    shape = _numbers(file, name).shape or (1,)
    layout = h5py.VirtualLayout(shape=shape, dtype="u2")
    source = h5py.VirtualSource(chance.choice(["missing.h5", Path(file.filename).name]), f"/{name}", shape=shape)
    layout[...] = source
    del file[name]
    file.create_virtual_dataset(name, layout, fillvalue=chance.choice([0, 65535]))


def _attributes(file: h5py.File, name: str, chance: random.Random) -> None:
    attributes = file[name].attrs
    key = chance.choice([*attributes, "units", "units"])
    attributes[key] = chance.choice([*UNITS, *WILD_NUMBERS])


def _as_group(file: h5py.File, name: str, _: random.Random) -> None:
    was_group = isinstance(file[name], h5py.Group)
    del file[name]
    if was_group:
        file[name] = np.zeros(3)
    else:
        file.create_group(name)


def _odd_name(file: h5py.File, name: str, chance: random.Random) -> None:
    item = file[name]
    parent = item.parent
    odd = chance.choice(NAMES)
    if odd not in parent:
        parent[odd] = item


HDF5_CHANGES = (
    *(_remove, _wild_values, _wild_values, _scaled, _scaled, _wrong_dtype, _wrong_dtype, _other_shape, _wild_shape),
    *(_dangling, _virtual, _attributes, _attributes, _as_group, _odd_name),
)


def _numbers(file: h5py.File, name: str) -> np.ndarray:
    item = file.get(name)
    if (
        not isinstance(item, h5py.Dataset)
        or item.is_virtual
        or item.dtype.kind not in "iufb"
        or item.shape is None
        or item.size > 1e6
    ):
        return np.ones(3)
    return np.asarray(item[()])


def _put(file: h5py.File, name: str, values: Any) -> None:
    attributes = dict(file[name].attrs)
    del file[name]
    file[name] = values
    file[name].attrs.update(attributes)


# NumPy

HEADERS = (
    "{'descr': '<f8', 'fortran_order': False, 'shape': (%d, 16, 24), }",
    "{'descr': '<f8', 'fortran_order': True, 'shape': (25, 16, 24), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (25,), }",
    "{'descr': '<u2', 'fortran_order': False, 'shape': (25, %d, %d), }",
    "{'descr': '<u2', 'fortran_order': False, 'shape': (-1, 16, 24), }",
    "{'descr': '<u2', 'fortran_order': False, 'shape': (25, 0, 24), }",
    "{'descr': '<U4000000000', 'fortran_order': False, 'shape': (25, 16, 24), }",
    "{'descr': [('a', '<f8'), ('b', '|V3')], 'fortran_order': False, 'shape': (25, 2), }",
    "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (25, 2), }",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (25, 16, 24), }",
    "{'descr': '<c16', 'fortran_order': False, 'shape': (25, 16, 24), }",
    "{'descr': '>i2', 'fortran_order': False, 'shape': (25, 16, 24), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': ('a', 2), }",
    "{'descr': '<f8', 'fortran_order': 3, 'shape': 7, }",
    "{'descr': '<f8'}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (True, False), }",
    "(" * 9000,
    "__import__('os').abort()",
    "\0\xff",
    "",
)


def _hostile(chance: random.Random) -> bytes:
    text = chance.choice(HEADERS)
    sizes = [chance.choice(WILD_INTEGERS) for _ in range(text.count("%d"))]
    header = (text % tuple(sizes) if sizes else text).encode("latin-1") + b"\n"
    version = chance.choice([(1, 0), (1, 0), (2, 0), (3, 0), (9, 9)])
    length = len(header) if chance.random() < 0.8 else 2**16 - 1
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", length) + header


def _other_array(chance: random.Random, content: bytes) -> bytes:
    """Return a `.npy` file instead of one: hostile headers, wild values, other shapes and dtypes."""
    if chance.random() < 0.4:
        return _hostile(chance) + content[128:]
    try:
        values = np.load(io.BytesIO(content), allow_pickle=False)
    except ValueError:
        return _hostile(chance)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        changed = values.astype(chance.choice(["f8", "f4", "c16", "i1", "?", "f2", ">i4", "S4"]))
        if chance.random() < 0.5 and changed.size and changed.dtype.kind in "fc":
            changed.reshape(-1)[chance.randrange(changed.size) :] = chance.choice(WILD_NUMBERS)
    shapes = [
        changed,
        changed.reshape(-1),
        changed[np.newaxis],
        changed.T,
        changed[: len(changed) // 2] if changed.ndim else changed,
    ]
    written = io.BytesIO()
    np.save(written, chance.choice(shapes), allow_pickle=False)
    return written.getvalue()


def _change_npy(path: Path, chance: random.Random) -> str:
    path.write_bytes(_other_array(chance, path.read_bytes()))
    return "another array"


def _change_npz(path: Path, chance: random.Random) -> str:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    victim = chance.choice(sorted(members))
    way = chance.choice(["array", "array", "array", "removed", "twice", "renamed", "no array"])
    with zipfile.ZipFile(path, "w", chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for name, content in members.items():
            if name != victim:
                archive.writestr(name, content)
            elif way == "array":
                archive.writestr(name, _other_array(chance, content))
            elif way == "twice":
                archive.writestr(name, content)
                archive.writestr(f"copy_{name}", _other_array(chance, content))
            elif way == "renamed":
                archive.writestr(chance.choice(["../../evil.npy", "x.txt", "\n.npy", "a" * 300 + ".npy"]), content)
            elif way == "no array":
                archive.writestr(name, b"no array")
    return f"{way}: {victim}"


WORDS = ("nan", "inf", "-inf", "1e400", "", "x", "1e30", "#", ",", "\0", "0x10", "1_000", "\xff", "-1e-300", "9" * 400)


def _change_text(path: Path, chance: random.Random) -> str:
    lines = path.read_text(encoding="latin-1").splitlines()
    for _ in range(chance.choice([1, 1, 5])):
        row = chance.randrange(len(lines))
        words = lines[row].split() or [""]
        words[chance.randrange(len(words))] = chance.choice(WORDS)
        lines[row] = chance.choice([" ", ",", ";", "\t"]).join(words)
    path.write_text("\n".join(lines), encoding="latin-1")
    return "words changed"
