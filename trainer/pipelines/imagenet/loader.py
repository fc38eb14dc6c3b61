"""Reads image files in worker processes, a minibatch at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from acquisition.images.decoding import CorruptImage, decode
from acquisition.images.image_folder import ImageFile
from streaming.errors import UserError
from trainer.pipelines.imagenet.settings import ImageSettings
from trainer.pipelines.pipeline import Minibatch

log = logging.getLogger(__name__)

Rows = list[int]
"""Positions in the list of files."""

Loaded = tuple[torch.Tensor, torch.Tensor, dict[int, str]]
"""Images, labels, and why rows could not be read."""

NAMED = 3
"""Corrupt files that an error names."""


class ImageLoader:
    """Serves minibatches of files that are chosen anew for every pass; its workers live as long as it does.

    A file that cannot be read is named in the log, left out, and counted once.

    Args:
        files: all that may be asked for.
        settings: shape of the images, workers, and how many files may be corrupt.
    """

    def __init__(self, files: Sequence[ImageFile], settings: ImageSettings) -> None:
        self.corrupt: dict[int, str] = {}
        """Why a file could not be read, by its position."""
        self._files, self._share = files, settings.corrupt_share
        self._batches: list[Rows] = []
        self._loader: DataLoader[Loaded] = DataLoader(
            _Files(files, settings),
            batch_sampler=_Chosen(self._batches),
            collate_fn=_only,
            num_workers=settings.workers,
            persistent_workers=settings.workers > 0,
            # of its own, so that a training that goes on from a checkpoint draws the same numbers for augmentation
            generator=torch.Generator(),
            # Forked workers would inherit the locks of the buffer's and gloo's threads.
            multiprocessing_context="forkserver" if settings.workers > 0 else None,
        )

    def load(self, batches: Sequence[Rows]) -> Iterator[Minibatch]:
        """Yield one minibatch per entry: `image` uint8 (n, channels, px, px) and `label` int64 (n,).

        Raises:
            UserError: more files are corrupt than the settings allow.
        """
        self._batches[:] = batches
        for images, labels, corrupt in self._loader:
            self._note(corrupt)
            if len(labels):
                yield {"image": images, "label": labels}

    def _note(self, corrupt: dict[int, str]) -> None:
        for row, reason in corrupt.items():
            if row not in self.corrupt:
                log.warning("left out an image that cannot be read: %s", reason)
        self.corrupt |= corrupt
        if len(self.corrupt) > self._share * len(self._files):
            named = "; ".join(list(self.corrupt.values())[:NAMED])
            raise UserError(
                f"{len(self.corrupt)} of {len(self._files)} images cannot be read, more than "
                f"images.corrupt_share = {self._share:g} allows: {named}"
            )


class _Files(Dataset[Loaded]):
    def __init__(self, files: Sequence[ImageFile], settings: ImageSettings) -> None:
        self._files, self._channels, self._px = files, settings.channels, settings.stored_px
        self._kept: dict[int, npt.NDArray[np.uint8]] | None = {} if settings.keep_in_memory else None

    def __getitems__(self, rows: Rows) -> list[Loaded]:
        images, labels, corrupt = [], [], {}
        for row in rows:
            try:
                images.append(self._image(row))
                labels.append(self._files[row].label)
            except CorruptImage as error:
                corrupt[row] = str(error)
        shape = (0, self._channels, self._px, self._px)
        pixels = np.stack(images) if images else np.zeros(shape, np.uint8)
        return [(torch.from_numpy(pixels), torch.tensor(labels, dtype=torch.int64), corrupt)]

    def _image(self, row: int) -> npt.NDArray[np.uint8]:
        if self._kept is not None and row in self._kept:
            return self._kept[row]
        image = decode(self._files[row].path, channels=self._channels, px=self._px)
        if self._kept is not None:
            self._kept[row] = image
        return image


class _Chosen:
    """A sampler of batches that are chosen before each pass."""

    def __init__(self, batches: list[Rows]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Rows]:
        return iter(list(self._batches))

    def __len__(self) -> int:
        return len(self._batches)


def _only(parts: list[Loaded]) -> Loaded:
    (part,) = parts
    return part
