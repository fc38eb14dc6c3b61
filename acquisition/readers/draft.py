"""A draft of a dataset map for a file of unknown layout: what was found, and what a person has to fill in."""

from __future__ import annotations

import json
from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from ptychoflow.acquisition.readers.survey import Candidate, Role, Survey
from ptychoflow.acquisition.readers.units import Quantity, parse_unit
from ptychoflow.streaming.printable import printable

FILL_IN = "FILL IN"
"""Stands where nothing was found; a map with it is refused with the key that is open."""


def survey_table(found: Survey) -> Table:
    """Return a table of all candidates for a terminal."""
    table = Table()
    for name in ("could be", "dataset", "shape", "type", "unit", "value or range"):
        table.add_column(name, overflow="fold")
    for one in found.candidates:
        role = one.role.value if one.named else f"{one.role.value}?"
        shape = " × ".join(map(str, one.shape)) or "one"
        table.add_row(role, *(Text(printable(text)) for text in (one.path, shape, one.dtype, one.unit, one.values)))
    return table


def draft_map(found: Survey, *, name: str) -> str:
    """Return the text of a dataset map (TOML) for the file `name`, to be completed by a person."""
    return "\n".join(_lines(found, name)) + "\n"


def _lines(found: Survey, name: str) -> Iterator[str]:
    yield f"# A draft of a dataset map for {printable(name)}."
    yield f"# Check every line, and replace every {json.dumps(FILL_IN)};"
    yield "# then use it with --map FILE. What it cannot hold may be given as --set source.geometry.KEY=..."
    yield from _frames(found)
    yield from _positions(found)
    yield from _geometry(found)
    for section, role in (("probe", Role.PROBE), ("mask", Role.MASK)):
        for one in [one for one in found.of(role) if one.named][:1]:
            yield f"\n[{section}]"
            yield f"path = {json.dumps(one.path)}"
            if role is Role.MASK:
                yield "good = 0                       # the value of pixels to use"
    for one in found.of(Role.ANGLE)[:1]:
        yield f"\n[angle_deg]\npath = {json.dumps(one.path)}"
        yield f"unit = {json.dumps(str(parse_unit(one.unit, Quantity.ANGLE) or 'deg'))}"


def _frames(found: Survey) -> Iterator[str]:
    stacks = found.of(Role.FRAMES)
    yield "\n[frames]"
    if not stacks:
        yield f"path = {json.dumps(FILL_IN)}              # no dataset looks like a stack of frames"
        return
    first = stacks[0]
    alike = [one.path for one in stacks if one.path.rsplit("/", 1)[0] == first.path.rsplit("/", 1)[0]]
    alike = [path for path in alike if path.rstrip("0123456789") == first.path.rstrip("0123456789")]
    joined = len(alike) > 1 and first.path[-1:].isdigit()
    yield f"path = {json.dumps(first.path.rstrip('0123456789') + '*' if joined else first.path)}"
    for other in [one for one in stacks if one.path not in alike]:
        yield f"# or {json.dumps(other.path)}, {other.shape}"
    axes = ["frame", "y", "x"] if len(first.shape) == 3 else ["row", "column", "y", "x"]
    yield f"axes = {json.dumps(axes)}     # as in the file"
    yield 'values = "counts"              # or "amplitudes"'
    yield 'zero_frequency = "centre"      # or "corner"'


def _positions(found: Survey) -> Iterator[str]:
    tables = found.of(Role.POSITIONS)
    yield "\n[positions]"
    pair = _pair_of_axes(tables)
    two_columns = [one for one in tables if len(one.shape) in {2, 3} and {2, 3} & {one.shape[0], one.shape[-1]}]
    if pair is not None and not any(one.named for one in two_columns):
        y, x = pair
        yield f"path_y = {json.dumps(y.path)}"
        yield f"path_x = {json.dumps(x.path)}"
        chosen: Candidate | None = y
    elif two_columns:
        chosen = two_columns[0]
        yield f"path = {json.dumps(chosen.path)}"
        yield 'columns = "xy"                 # or "yx"'
    else:
        chosen = None
        yield f'path_y = {json.dumps(FILL_IN)}            # or file = "a file beside this one" with column_y, column_x'
        yield f"path_x = {json.dumps(FILL_IN)}"
    for other in tables:
        if other is not chosen and (pair is None or other not in pair):
            yield f"# or {json.dumps(other.path)}, {other.shape}, {other.values}"
    unit = parse_unit(chosen.unit, Quantity.POSITION) if chosen is not None else None
    yield f"unit = {json.dumps(str(unit) if unit else FILL_IN)}              # m, mm, um, nm or px"
    yield "sign_y = 1                     # -1 if y grows against the rows of the frames"
    yield "sign_x = 1                     # -1 if x grows against the columns of the frames"


def _pair_of_axes(tables: list[Candidate]) -> tuple[Candidate, Candidate] | None:
    """Return two datasets whose names differ by y and x only."""
    by_path = {one.path.lower(): one for one in tables if len(one.shape) == 1 or 1 in one.shape}
    for path, x in by_path.items():
        folder, name = path.rsplit("/", 1)
        for place, letter in enumerate(name):
            partner = by_path.get(f"{folder}/{name[:place]}y{name[place + 1 :]}")
            if letter == "x" and partner is not None:
                return partner, x
    return None


def _geometry(found: Survey) -> Iterator[str]:
    yield "\n[geometry]"
    energies, wavelengths = found.of(Role.ENERGY), found.of(Role.WAVELENGTH)
    if energies or not wavelengths:
        yield _quantity("energy", energies, Quantity.ENERGY, "eV, keV or J")
    else:
        yield _quantity("wavelength", wavelengths, Quantity.LENGTH, "nm or angstrom")
    yield _quantity("detector_distance", found.of(Role.DISTANCE), Quantity.LENGTH, "m or mm")
    pixels = found.of(Role.PIXEL)
    along_y = [one for one in pixels if one.path.rsplit("/", 1)[-1].lower().startswith("y")]
    yield _quantity("detector_pixel_size", [one for one in pixels if one not in along_y], Quantity.LENGTH, "m or um")
    if along_y:
        yield _quantity("detector_pixel_size_y", along_y, Quantity.LENGTH, "m or um")


def _quantity(key: str, candidates: list[Candidate], quantity: Quantity, units: str) -> str:
    if not candidates:
        return f"{key} = {{value = {json.dumps(FILL_IN)}, unit = {json.dumps(FILL_IN)}}}    # {units}"
    one = candidates[0]
    unit = parse_unit(one.unit, quantity)
    words = f"    # {one.values}; {units}" + "".join(f"; or {printable(other.path)}" for other in candidates[1:4])
    return f"{key} = {{path = {json.dumps(one.path)}, unit = {json.dumps(str(unit) if unit else FILL_IN)}}}{words}"
