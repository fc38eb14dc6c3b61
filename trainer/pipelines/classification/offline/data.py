"""A data set as every training on it uses it."""

from __future__ import annotations

from collections.abc import Sequence

from ptychoflow.acquisition.classification.image_folder import ImageFile, read_image_folder
from ptychoflow.trainer.pipelines.classification.offline.dali_loader import DaliLoader
from ptychoflow.trainer.pipelines.classification.offline.loader import ImageLoader
from ptychoflow.trainer.pipelines.classification.offline.loading import Loader
from ptychoflow.trainer.pipelines.classification.settings import ImageSettings, LoaderName


class ImageData:
    """The files of a folder and what reads them; workers live as long as it does.

    Args:
        settings: folder, shape of the images, workers.

    Raises:
        UserError: the folder is not laid out as it should be, or the loader cannot be used on this host.
    """

    def __init__(self, settings: ImageSettings) -> None:
        self.files = read_image_folder(settings.folder)
        self.train = make_loader(self.files.train, settings)
        self.val = make_loader(self.files.val, settings)

    @property
    def classes(self) -> int:
        """Of all tasks together."""
        return len(self.files.classes)

    @property
    def corrupt(self) -> int:
        """Files for training and for validation that no rank could read so far."""
        return len(self.train.corrupt.reasons) + len(self.val.corrupt.reasons)


def make_loader(files: Sequence[ImageFile], settings: ImageSettings) -> Loader:
    """Return the loader that the settings name; raise UserError if it cannot be used on this host."""
    return DaliLoader(files, settings) if settings.loader is LoaderName.DALI else ImageLoader(files, settings)
