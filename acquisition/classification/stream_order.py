"""Which image of a data set comes when, and what it is used for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptychoflow.acquisition.classification.image_folder import read_image_folder
from ptychoflow.acquisition.classification.settings import ImageFolderSettings
from ptychoflow.acquisition.classification.tasks import deal_classes
from ptychoflow.streaming.messages import FrameRole


@dataclass(frozen=True)
class StreamedImage:
    """One image; its place in its task is the index of its frame id."""

    path: Path
    label: int
    role: FrameRole


@dataclass(frozen=True)
class ImageTask:
    """Classes that come together, and their images in order."""

    class_names: tuple[str, ...]
    """In the order of their labels."""
    images: tuple[StreamedImage, ...]

    def validation_images(self) -> list[int]:
        """Return how many of each class there are, in the order of the names."""
        counts = dict.fromkeys(sorted({image.label for image in self.images}), 0)
        for image in self.images:
            counts[image.label] += image.role is FrameRole.VALIDATION
        return list(counts.values())


def order_stream(settings: ImageFolderSettings, *, seed: int) -> tuple[ImageTask, ...]:
    """Deal a data set to tasks and shuffle each, validation images among the others; nothing is decoded.

    The order depends on the names of the files and on the seed alone, so it is the same after a resume.

    Raises:
        UserError: the folder is not laid out as it should be, or there are more tasks than classes.
    """
    folder = read_image_folder(settings.folder)
    images = [StreamedImage(file.path, file.label, FrameRole.TRAIN) for file in folder.train]
    images += [StreamedImage(file.path, file.label, FrameRole.VALIDATION) for file in folder.val]
    labels = np.array([image.label for image in images])
    tasks = []
    dealt = deal_classes(len(folder.classes), tasks=settings.tasks, seed=seed, setting="source.tasks")
    for number, classes in enumerate(dealt):
        rows = np.flatnonzero(np.isin(labels, list(classes)))
        order = np.random.default_rng((seed, number)).permutation(rows).tolist()
        names = tuple(folder.classes[label] for label in sorted(classes))
        tasks.append(ImageTask(names, tuple(images[row] for row in order)))
    return tuple(tasks)
