"""Names of datasets in CXI files and in recordings, shared by readers and writer.

CXI: Maia, "The Coherent X-ray Imaging Data Bank", Nature Methods 9 (2012), version 1.6 of the format. A recording is a
CXI file with one entry per perspective; what CXI has no place for is in the group `EXTRAS` of each entry.
"""

from __future__ import annotations

CXI_VERSION = 160
VERSION = "cxi_version"
ENTRY_PREFIX = "entry_"

FRAMES = "data_1/data"
TRANSLATION = "data_1/translation"
DISTANCE = "instrument_1/detector_1/distance"
PIXEL_SIZE_X = "instrument_1/detector_1/x_pixel_size"
PIXEL_SIZE_Y = "instrument_1/detector_1/y_pixel_size"
MASK = "instrument_1/detector_1/mask"
ENERGY = "instrument_1/source_1/energy"
PROBE = "instrument_1/source_1/illumination"

FRAMES_ALTERNATIVES = (FRAMES, "instrument_1/detector_1/data")
TRANSLATION_ALTERNATIVES = (TRANSLATION, "sample_1/geometry_1/translation", "instrument_1/detector_1/translation")
BEAM_ENERGIES = ("incident_energy", "energy", "incident_beam_energy")
# NXcxi_ptycho keeps the photon energy with the beam and the storage ring's with the source.
ENERGY_ALTERNATIVES = (
    *(f"{beam}/{name}" for beam in ("instrument_1/beam_1", "beam_1") for name in BEAM_ENERGIES),
    ENERGY,
)
MASK_ALTERNATIVES = (MASK, "instrument_1/detector_1/pixel_mask")
BASIS_VECTORS_ALTERNATIVES = ("instrument_1/detector_1/basis_vectors", "data_1/basis_vectors")
PROBE_ALTERNATIVES = (PROBE, "instrument_1/source_1/probe")

RECORDING_VERSION_ATTRIBUTE = "ptychoflow_recording"
RECORDING_VERSION = 1
NAME_ATTRIBUTE = "name"
STOPPED_ATTRIBUTE = "stopped"
"""There, and true, if the scan was stopped before its end."""

EXTRAS = "ptychoflow_1"
POSITIONS_PX = f"{EXTRAS}/position_px"
ENERGY_EV = f"{EXTRAS}/energy_eV"
ANGLE_DEG = f"{EXTRAS}/angle_deg"
OBJECT = f"{EXTRAS}/object"
OBJECT_ORIGIN_PX = f"{EXTRAS}/object_origin_px"


def entry_name(perspective: int) -> str:
    """Return the entry of perspective 0, 1, ...: CXI counts from 1."""
    return f"{ENTRY_PREFIX}{perspective + 1}"
