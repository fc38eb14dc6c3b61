"""The header of a capture: which fields a sample has, and how they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.parsers import expat

import numpy as np

from ptychoflow.acquisition.detectors.panda.framing import MAX_HEADER_BYTES

MAX_FIELDS = 512
MAX_NUMBER = 2**53
TYPES = {"int32": "<i4", "uint32": "<u4", "int64": "<i8", "uint64": "<u8", "double": "<f8"}
SCALED = "Scaled"


@dataclass(frozen=True)
class CapturedField:
    """One field of every sample."""

    name: str
    capture: str
    """What was captured of it: `Value`, `Mean`, …"""
    dtype: np.dtype[np.generic]
    unit: str | None
    """As the box says it; None or empty where it does not."""

    @property
    def full_name(self) -> str:
        """Return name and capture."""
        return f"{self.name}.{self.capture}"


@dataclass(frozen=True)
class CaptureHeader:
    """What a PandA says before the samples of a capture."""

    missed: int
    """Samples captured before the connection was made."""
    process: str
    """`Scaled`, `Unscaled` or `Raw`."""
    fields: tuple[CapturedField, ...]
    arm_time: str | None
    """When the capture was armed; newer boxes say it."""

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Return the dtype of a sample, whose fields are named `0`, `1` and so on, by their place."""
        return np.dtype([(str(place), field.dtype) for place, field in enumerate(self.fields)])

    def place(self, wanted: str) -> int:
        """Return the place of a field.

        Raises:
            ValueError: there is none of the name, or several.
        """
        places = [place for place, field in enumerate(self.fields) if field.full_name == wanted]
        places = places or [place for place, field in enumerate(self.fields) if field.name == wanted]
        if len(places) != 1:
            names = ", ".join(field.full_name for field in self.fields[:32]) or "none"
            raise ValueError(f"the capture has {len(places) or 'no'} fields {wanted!r}; captured are {names}")
        return places[0]


def parse_header(data: bytes) -> CaptureHeader:
    """Read a header. Documents with a DOCTYPE are refused, so that no entity is ever expanded.

    Raises:
        ValueError: it is no header; one line says why.
    """
    if len(data) > MAX_HEADER_BYTES:
        raise ValueError(f"the header has {len(data)} bytes; at most {MAX_HEADER_BYTES} are read")
    collected = _Elements()
    try:
        collected.parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(f"the header is no XML: {error}") from error
    if collected.data is None:
        raise ValueError("the header says nothing of its data")
    header = CaptureHeader(
        missed=_whole(collected.data.get("missed"), "missed"),
        process=collected.data.get("process", ""),
        fields=tuple(_field(attributes) for attributes in collected.fields),
        arm_time=collected.data.get("arm_time"),
    )
    if collected.data.get("format") != "Framed":
        raise ValueError(f"samples come in the format {collected.data.get('format')!r}, not 'Framed'")
    sample_bytes = _whole(collected.data.get("sample_bytes"), "sample_bytes")
    if not header.fields or header.dtype.itemsize != sample_bytes:
        raise ValueError(f"a sample has {sample_bytes} bytes, but its fields have {header.dtype.itemsize}")
    return header


class _Elements:
    """The attributes of the elements `data` and `field`."""

    def __init__(self) -> None:
        self.data: Mapping[str, str] | None = None
        self.fields: list[Mapping[str, str]] = []
        self.parser = expat.ParserCreate()
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.StartElementHandler = self._take

    def _take(self, name: str, attributes: dict[str, str]) -> None:
        if name == "data":
            self.data = attributes
        elif name == "field":
            if len(self.fields) == MAX_FIELDS:
                raise ValueError(f"the header has more than {MAX_FIELDS} fields")
            self.fields.append(attributes)

    def _refuse(self, *_declared: object) -> None:
        raise ValueError("the header declares a document type, which is refused")


def _field(attributes: Mapping[str, str]) -> CapturedField:
    kind = attributes.get("type", "")
    if kind not in TYPES:
        raise ValueError(f"a field is of the type {kind[:40]!r}, which is not known; {', '.join(TYPES)} are")
    return CapturedField(
        attributes.get("name", ""), attributes.get("capture", ""), np.dtype(TYPES[kind]), attributes.get("units")
    )


def _whole(text: str | None, what: str) -> int:
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 16 or int(text) > MAX_NUMBER:
        raise ValueError(f"the header's {what} is {(text or '')[:40]!r}, which is no number of samples or bytes")
    return int(text)
