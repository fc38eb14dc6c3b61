"""The choice of DALI, what is said where it cannot be used, and that it reads what Pillow reads.

Decoding on a GPU is not run here; these tests decode on the CPU.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import write_digits
from PIL import Image
from pydantic import ValidationError

from ptychoflow.acquisition.classification.image_folder import ImageFile, read_image_folder
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.pipelines.classification.offline.dali_loader import DaliLoader
from ptychoflow.trainer.pipelines.classification.offline.data import ImageData
from ptychoflow.trainer.pipelines.classification.offline.loader import ImageLoader
from ptychoflow.trainer.pipelines.classification.settings import ImageSettings, LoaderName

needs_dali = pytest.mark.skipif(
    find_spec("nvidia") is None or find_spec("nvidia.dali") is None, reason="the extra dali is not installed"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_digits(tmp_path / "digits", classes=2, train=6, val=2)


def settings(folder: Path, **changes: object) -> ImageSettings:
    fixed = {"folder": folder, "channels": 1, "stored_px": 8, "image_px": 8, "workers": 0}
    return ImageSettings.model_validate(fixed | changes)


def test_worker_processes_read_unless_dali_is_asked_for(folder: Path) -> None:
    assert isinstance(ImageData(settings(folder)).train, ImageLoader)
    assert settings(folder, loader="dali").loader is LoaderName.DALI
    with pytest.raises(ValidationError, match=r"'torchvision' or 'dali'"):
        settings(folder, loader="pillow")
    with pytest.raises(ValidationError, match=r"keep_in_memory needs loader = 'torchvision'"):
        settings(folder, loader="dali", keep_in_memory=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_dali_without_a_gpu_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"images.loader is 'dali', but PyTorch finds no CUDA device; or use"):
        ImageData(settings(folder, loader="dali"))


def test_dali_that_is_not_installed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptychoflow.trainer.pipelines.classification.offline.dali_loader.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"DALI is not installed: pip install 'ptychoflow\[dali\]'"):
        DaliLoader([], settings(folder), on_gpu=False)


@needs_dali
@pytest.mark.parametrize("channels", [1, 3])
def test_dali_makes_the_squares_that_pillow_makes(tmp_path: Path, channels: int) -> None:
    random = np.random.default_rng(0)
    files = []
    for number, size in enumerate([(60, 40), (30, 64), (50, 50)]):
        coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        path = tmp_path / f"{number}.{'jpg' if number else 'png'}"
        coarse.resize(size, Image.Resampling.BICUBIC).save(path)
        files.append(ImageFile(path, label=number))
    asked = settings(tmp_path, channels=channels, stored_px=16, image_px=16)
    batches = [[2], [0, 1, 2], [1, 0]]
    pairs = zip(
        DaliLoader(files, asked, on_gpu=False).load(batches), ImageLoader(files, asked).load(batches), strict=True
    )
    for found, expected in pairs:
        assert found["label"].tolist() == expected["label"].tolist()
        assert found["image"].dtype == torch.uint8
        assert (found["image"].int() - expected["image"].int()).abs().max() <= 2


@needs_dali
def test_dali_leaves_corrupt_files_out_and_goes_on(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = folder / "train" / "1" / "002.png"
    bad.write_bytes(bad.read_bytes()[:40])
    loader = DaliLoader(read_image_folder(folder).train, settings(folder, corrupt_share=0.1), on_gpu=False)
    for _ in range(2):
        labels = [minibatch["label"].tolist() for minibatch in loader.load([[0, 8, 11], [8], [5]])]
        assert labels == [[0, 1], [0]]
    assert list(loader.corrupt.reasons) == [8]
    assert caplog.text.count(f"left out an image that cannot be read: {bad}") == 1
