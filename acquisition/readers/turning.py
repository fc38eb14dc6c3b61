"""Frames of a detector that is mounted in another way than CXI assumes, brought to the usual orientation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Turn:
    """Exchanges the axes of images, then mirrors them about the pixel (y // 2, x // 2)."""

    transpose: bool = False
    flip_y: bool = False
    flip_x: bool = False

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return not (self.transpose or self.flip_y or self.flip_x)

    def apply(self, images: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return images (..., y, x) turned. The zero frequency stays where it is."""
        if self.transpose:
            images = images.swapaxes(-2, -1)
        for axis, flip in ((-2, self.flip_y), (-1, self.flip_x)):
            if flip:
                # On an axis of even length the centre is not in the middle: pixel 0 has no partner and stays.
                images = np.roll(np.flip(images, axis), 1 - images.shape[axis] % 2, axis)
        return images
