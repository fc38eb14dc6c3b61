"""Reads image files in worker processes, a minibatch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import DataLoader, Dataset

from ptychoflow.acquisition.classification.decoding import Pixels, decode, decode_all
from ptychoflow.acquisition.classification.image_folder import ImageFile
from ptychoflow.trainer.interface.pipeline import Minibatch
from ptychoflow.trainer.pipelines.classification.offline.loading import RanksCorruptFiles, Rows
from ptychoflow.trainer.pipelines.classification.settings import ImageSettings

Loaded = tuple[torch.Tensor, torch.Tensor, dict[int, str]]
"""Images, labels, and why rows could not be read."""


class ImageLoader:
    """A `Loader` whose workers live as long as it does.

    Args:
        files: all that may be asked for.
        settings: shape of the images, workers, and how many files may be corrupt.
    """

    def __init__(self, files: Sequence[ImageFile], settings: ImageSettings) -> None:
        self._corrupt = RanksCorruptFiles(len(files), share=settings.corrupt_share)
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

    @property
    def corrupt(self) -> RanksCorruptFiles:
        """What could not be read."""
        return self._corrupt

    def load(self, batches: Sequence[Rows]) -> Iterator[Minibatch]:
        """Yield one minibatch per entry: `image` uint8 (n, channels, px, px) and `label` int64 (n,).

        Raises:
            UserError: more files are corrupt than the settings allow.
        """
        self._batches[:] = batches
        for images, labels, corrupt in self._loader:
            self._corrupt.note(corrupt)
            if len(labels):
                yield {"image": images, "label": labels}


class _Files(Dataset[Loaded]):
    def __init__(self, files: Sequence[ImageFile], settings: ImageSettings) -> None:
        self._files, self._channels, self._px = files, settings.channels, settings.stored_px
        self._kept: dict[int, Pixels] | None = {} if settings.keep_in_memory else None

    def __getitems__(self, rows: Rows) -> list[Loaded]:
        found = decode_all(rows, self._image, channels=self._channels, px=self._px)
        labels = torch.tensor([self._files[row].label for row in found.rows], dtype=torch.int64)
        return [(torch.from_numpy(found.pixels), labels, found.faults)]

    def _image(self, row: int) -> Pixels:
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
