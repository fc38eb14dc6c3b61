"""Random crops and mirrored images, another one for every sample and pass.

Source: C. Szegedy et al., "Going deeper with convolutions" (2015), section 6, with the ranges that became usual.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ASPECTS = (3 / 4, 4 / 3)
"""Width over height of a crop."""


def crop_at_random(images: Tensor, *, px: int, least_area: float, flip: bool) -> Tensor:
    """Cut a rectangle out of every image and scale it to a square, bilinearly.

    Args:
        images: float (n, channels, y, x).
        px: size of the square.
        least_area: a rectangle has this share of the image's area at least; its proportions vary within `ASPECTS`. One
            that would stick out is cut to the image, so that a crop of more than 3/4 may cover less.
        flip: mirror every image with probability 1/2.

    Returns:
        (n, channels, px, px).
    """
    count, device = len(images), images.device
    area = torch.empty(count, device=device).uniform_(least_area, 1.0)
    aspect = torch.empty(count, device=device).uniform_(*(torch.tensor(ASPECTS).log().tolist())).exp()
    # As shares of the image; a rectangle that would stick out is cut to the image.
    height, width = (area / aspect).sqrt().clamp(max=1.0), (area * aspect).sqrt().clamp(max=1.0)
    centre_y, centre_x = (torch.empty(count, device=device).uniform_(-1.0, 1.0) for _ in range(2))
    mirror = torch.randint(0, 2, (count,), device=device) * 2 - 1 if flip else torch.ones(count, device=device)
    crops = torch.zeros(count, 2, 3, device=device)
    crops[:, 0, 0], crops[:, 0, 2] = width * mirror, centre_x * (1.0 - width)
    crops[:, 1, 1], crops[:, 1, 2] = height, centre_y * (1.0 - height)
    grid = nn.functional.affine_grid(crops, [count, images.shape[1], px, px], align_corners=False)
    return nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def crop_middle(images: Tensor, *, px: int) -> Tensor:
    """Return the middle (n, channels, px, px) of images (n, channels, y, x)."""
    top, left = (images.shape[2] - px) // 2, (images.shape[3] - px) // 2
    return images[:, :, top : top + px, left : left + px]
