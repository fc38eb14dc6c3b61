"""A data set as every training on it uses it."""

from __future__ import annotations

from acquisition.images.image_folder import read_image_folder
from trainer.pipelines.imagenet.loader import ImageLoader
from trainer.pipelines.imagenet.settings import ImageSettings


class ImageData:
    """The files of a folder and what reads them; workers live as long as it does.

    Args:
        settings: folder, shape of the images, workers.

    Raises:
        UserError: the folder is not laid out as it should be.
    """

    def __init__(self, settings: ImageSettings) -> None:
        self.files = read_image_folder(settings.folder)
        self.train = ImageLoader(self.files.train, settings)
        self.val = ImageLoader(self.files.val, settings)

    @property
    def classes(self) -> int:
        """Of all tasks together."""
        return len(self.files.classes)
