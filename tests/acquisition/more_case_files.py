"""Files that a script of an independent model writes, and what `ptychoflow inspect` must say of each."""

from __future__ import annotations

from file_case import Case


def _more(name: str, *words: str, is_refused: bool = False, file: str = "") -> Case:
    return Case(f"more: {name}", lambda folder: [folder / (file or f"{name}.cxi")], words, is_refused)


MORE = (
    _more("control", "144 of 64 × 64 px", "diameter of 46% of the field"),
    _more("control_with_probe", "144 of 64 × 64 px", "1 mode"),
    _more("gap_uint32", "314 pixels hold 4294967295 in every frame looked at"),
    _more(
        "virtual_half_missing", "moved_away.h5, which is missing", is_refused=True, file="virtual_half_missing/scan.cxi"
    ),
    _more("link_entry_missing", "links to", "scan_0001.cxi, which is missing", is_refused=True),
    _more("eiger_master", "the file has no positions", is_refused=True, file="eiger_master/x_master.h5"),
    _more("one_frame_nan", "1 of 144 frames show nothing (1 without a finite value): 10"),
    _more("hot_pixel", "1 pixels are hot, at (50, 50)", "diameter of 46% of the field"),
    _more("mask_inverted", "ignores 92% of the pixels", "source.preprocess.invert_mask=true"),
    _more("units_distance_mm", "distance 2 m"),
    _more("grid_4d", "144 of 64 × 64 px"),
    _more("more_positions_than_frames", "140 frames but 144 positions", "source.frames=first", is_refused=True),
    _more("nan_tail", "last 24 of 144 positions are no numbers", "frames 120 to 143 are set aside"),
    _more("probe_matlab_complex", "144 of 64 × 64 px", "1 mode, diameter 30 × 30 px"),
    _more("all_frames_zero", "none of the 144 frames looked at shows anything", is_refused=True),
    _more("off_centre", "off the middle of the frame by (9, -6) px", "source.preprocess.centre_px=[41,26]"),
    _more("flip_x", "source.preprocess.flip_x=true"),
    _more("transposed", "source.preprocess.transpose=true"),
    _more("positions_exchanged", "source.preprocess.swap_positions=true"),
    _more("translation_1000_too_small", "source.preprocess.position_scale=1000", is_refused=True),
    _more("position_outlier", "1 of 144 positions lie far from all others", "frames 7 are set aside"),
)
"""Files that a script of an independent model writes, by their names."""
