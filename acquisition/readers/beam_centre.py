"""What a file says of the place where the direct beam hits the detector."""

from __future__ import annotations

import math

from ptychoflow.streaming.set_option import set_option


def centre_note(centre_px: tuple[float | None, float | None], shape_px: tuple[int, int]) -> list[str]:
    """Return a note, with the setting, if a file's beam centre (y, x) is not where frames have it: (y // 2, x // 2)."""
    y, x = centre_px
    if y is None or x is None or not (math.isfinite(y) and math.isfinite(x)):
        return []
    if not (0 < y < shape_px[0] and 0 < x < shape_px[1]):
        return []
    if max(abs(y - shape_px[0] / 2), abs(x - shape_px[1] / 2)) <= 1:
        return []
    return [
        f"The file has the beam's centre at ({y:g}, {x:g}) px, not in the middle of the frame: correct it with "
        f"{set_option('source.preprocess.centre_px', f'[{round(y)},{round(x)}]')} (and crop_px)"
    ]
