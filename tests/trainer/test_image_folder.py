from __future__ import annotations

import io
import os
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from image_folders import write_digits
from PIL import Image, ImageOps
from ranks_in_processes import run_in_ranks

from ptychoflow.acquisition.classification.decoding import CorruptImage, decode
from ptychoflow.acquisition.classification.image_folder import read_image_folder
from ptychoflow.acquisition.classification.tasks import deal_classes
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.pipelines.classification.offline.data import ImageData
from ptychoflow.trainer.pipelines.classification.offline.loading import RanksCorruptFiles
from ptychoflow.trainer.pipelines.classification.settings import ImageSettings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_digits(tmp_path / "digits", classes=3, train=4, val=2)


def settings(folder: Path, **changes: object) -> ImageSettings:
    fixed = {"folder": folder, "channels": 1, "stored_px": 8, "image_px": 8, "workers": 0}
    return ImageSettings.model_validate(fixed | changes)


def corrupt(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:40])
    return path


def test_files_are_listed_with_the_position_of_their_class(folder: Path) -> None:
    (folder / "train" / "1" / "notes.txt").write_text("not an image")
    found = read_image_folder(folder)
    assert found.classes == ("0", "1", "2")
    assert [file.label for file in found.train] == [0] * 4 + [1] * 4 + [2] * 4
    assert [(file.path.parent.name, file.label) for file in found.val[::2]] == [("0", 0), ("1", 1), ("2", 2)]


def test_an_empty_class_is_named(folder: Path) -> None:
    for path in (folder / "val" / "2").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"val/2 holds no image; remove the class or add images"):
        read_image_folder(folder)


def test_classes_must_be_the_same_in_training_and_validation(folder: Path) -> None:
    (folder / "train" / "2").rename(folder / "train" / "cat")
    with pytest.raises(UserError, match=r"train and val must hold the same classes, but only one has train/cat, val/2"):
        read_image_folder(folder)


@pytest.mark.parametrize("missing", ["train", "val"])
def test_a_missing_part_is_named(folder: Path, missing: str) -> None:
    (folder / missing).rename(folder / "elsewhere")
    with pytest.raises(UserError, match=rf"{missing} cannot be listed: No such file or directory"):
        read_image_folder(folder)


def test_a_class_that_may_not_be_listed_is_named() -> None:
    """Not in pytest's folder, which is closed to whom root becomes here."""
    Image.registered_extensions()  # read once, as root
    with TemporaryDirectory() as temporary:
        Path(temporary).chmod(0o755)
        folder = write_digits(Path(temporary) / "digits", classes=2, train=2, val=2)
        (folder / "val" / "1").chmod(0)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)
            with pytest.raises(UserError, match=r"val/1 cannot be listed: Permission denied; it should hold images"):
                read_image_folder(folder)
        finally:
            os.seteuid(user)
            (folder / "val" / "1").chmod(0o755)


def test_more_tasks_than_classes_are_refused() -> None:
    with pytest.raises(UserError, match=r"images.tasks is 4, but there are only 3 classes"):
        deal_classes(3, tasks=4, seed=0)


def test_tasks_share_the_classes_evenly_in_an_order_of_the_seed() -> None:
    tasks = deal_classes(10, tasks=4, seed=1)
    assert sorted(len(task) for task in tasks) == [2, 2, 3, 3]
    assert frozenset[int]().union(*tasks) == frozenset(range(10))
    assert deal_classes(10, tasks=4, seed=1) == tasks
    assert deal_classes(10, tasks=4, seed=2) != tasks


def test_an_image_is_scaled_and_cropped_in_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 10:30] = (200, 100, 50)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    decoded = decode(tmp_path / "wide.png", channels=3, px=10)
    assert decoded.shape == (3, 10, 10)
    inside = decoded[:, :, 1:-1]  # the rim is mixed with what was cut off
    assert [set(channel.ravel().tolist()) for channel in inside] == [{200}, {100}, {50}]
    assert decode(tmp_path / "wide.png", channels=1, px=10).shape == (1, 10, 10)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(CorruptImage, match=r"bad\.png: "):
        decode(tmp_path / "bad.png", channels=3, px=10)


@pytest.mark.parametrize(
    ("written_as", "place", "damage"),
    [("JPEG2000", 35, b"\x01"), ("SPIDER", 4 * 23, np.float32(np.inf).tobytes())],
    ids=["a length", "a number of the header"],
)
def test_a_damaged_file_is_named_whatever_its_decoder_makes_of_it(
    tmp_path: Path, written_as: str, place: int, damage: bytes
) -> None:
    with io.BytesIO() as file:
        Image.new("F" if written_as == "SPIDER" else "L", (40, 40)).save(file, written_as)
        whole = file.getvalue()
    (tmp_path / "bad.png").write_bytes(whole[:place] + damage + whole[place + len(damage) :])
    with pytest.raises(CorruptImage, match=r"bad\.png: \w+"):
        decode(tmp_path / "bad.png", channels=1, px=8)


@pytest.mark.parametrize("workers", [0, 1])
def test_corrupt_images_are_named_left_out_and_counted_once(
    folder: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    bad = corrupt(folder / "train" / "1" / "002.png")
    loader = ImageData(settings(folder, corrupt_share=0.1, workers=workers)).train
    for _ in range(2):
        labels = [minibatch["label"].tolist() for minibatch in loader.load([[0, 6, 11], [6], [5]])]
        assert labels == [[0, 2], [1]]
    assert len(loader.corrupt.reasons) == 1
    assert str(bad) in loader.corrupt.reasons[6]
    assert caplog.text.count("left out an image that cannot be read") == 1


@pytest.mark.parametrize(
    ("mode", "suffix"), [("I;16", "png"), ("I;16", "tif"), ("I;16B", "tif"), ("L", "png"), ("RGB", "jpg")]
)
def test_a_ramp_is_the_same_ramp_whatever_its_depth(tmp_path: Path, mode: str, suffix: str) -> None:
    levels = np.tile(np.arange(0, 256, 4), (64, 1))
    if mode.startswith("I;16"):
        deep = (levels * 257).astype(">u2" if mode.endswith("B") else "<u2")
        image = Image.frombytes(mode, (64, 64), deep.tobytes())
    else:
        image = Image.fromarray(levels.astype(np.uint8)).convert(mode)
    image.save(tmp_path / f"ramp.{suffix}")
    decoded = decode(tmp_path / f"ramp.{suffix}", channels=1, px=64)[0].astype(int)
    np.testing.assert_allclose(decoded, levels, atol=2 if suffix == "jpg" else 0)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_values_of_32_bits_are_no_image(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(np.linspace(0, 1, 64).reshape(8, 8).astype(dtype)).save(tmp_path / "deep.tif")
    with pytest.raises(CorruptImage, match=r"deep\.tif: it holds values of 32 bits"):
        decode(tmp_path / "deep.tif", channels=1, px=8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_photograph_is_upright_whatever_else_its_camera_wrote(tmp_path: Path, orientation: int, suffix: str) -> None:
    """A tag of the wrong type cannot be written anew, as Pillow does when it turns an image."""
    path = tmp_path / f"photograph.{suffix}"
    ramp = np.add.outer(np.linspace(0, 170, 32), np.linspace(0, 85, 32)).astype(np.uint8)
    held = Image.Exif()
    held[0x112], held[0x10E] = orientation, "a width in words"
    Image.fromarray(ramp).save(path, exif=held)
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    description, width = b"\x01\x0e\x00\x02", b"\x01\x00\x00\x02"
    content = path.read_bytes()
    assert content.count(description) == 1
    content = content.replace(description, width)
    path.write_bytes(with_checksum_of_exif(content) if suffix == "png" else content)
    decoded = decode(path, channels=1, px=32)[0].astype(int)
    np.testing.assert_allclose(decoded, upright, atol=2)


def with_checksum_of_exif(png: bytes) -> bytes:
    start = png.index(b"eXIf")
    stop = start + 4 + int.from_bytes(png[start - 4 : start], "big")
    return png[:stop] + zlib.crc32(png[start:stop]).to_bytes(4, "big") + png[stop + 4 :]


def test_a_photograph_is_turned_as_it_was_held(tmp_path: Path) -> None:
    image = Image.fromarray(np.tile(np.linspace(0, 255, 32).astype(np.uint8), (32, 1)))
    held = image.getexif()
    held[0x112] = 6  # the camera lay on its right side
    image.save(tmp_path / "photograph.jpg", exif=held)
    decoded = decode(tmp_path / "photograph.jpg", channels=1, px=32)[0].astype(int)
    assert abs(decoded[0, 16] - 0) < 6
    assert abs(decoded[-1, 16] - 255) < 6


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_is_white(tmp_path: Path, channels: int) -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[4:12, 4:12, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "square.png")
    decoded = decode(tmp_path / "square.png", channels=channels, px=16)
    assert (decoded[:, 5:11, 5:11] == 0).all()
    assert (decoded[:, :3] == 255).all()


def test_an_error_of_any_decoder_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Missing or empty image item")  # of Pillow's AVIF decoder, where a file is damaged

    Image.new("L", (8, 8)).save(tmp_path / "damaged.png")
    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(CorruptImage, match=r"damaged\.png: Missing or empty image item"):
        decode(tmp_path / "damaged.png", channels=1, px=8)


def test_hidden_files_and_what_only_calls_itself_an_image_are_no_part_of_a_data_set(folder: Path) -> None:
    whole = read_image_folder(folder)
    for name in ("._000.png", "manual.pdf", "data.h5", "figure.eps"):
        (folder / "train" / "1" / name).write_bytes(b"no image")
    for part in ("train", "val"):
        (folder / part / ".ipynb_checkpoints").mkdir()
    assert read_image_folder(folder) == whole


def miss_my_own(rank: int, share: float) -> tuple[int, str]:
    corrupt = RanksCorruptFiles(10, share=share)
    corrupt.note({number: f"{number}.png is damaged" for number in ([0, 1, 2], [2, 3])[rank]})
    try:
        corrupt.gather(torch.device("cpu"))
    except UserError as error:
        return len(corrupt.reasons), str(error)
    return len(corrupt.reasons), ""


def test_ranks_count_what_any_of_them_could_not_read() -> None:
    assert run_in_ranks(miss_my_own, 2, 0.4) == [(4, ""), (4, "")]
    for count, said in run_in_ranks(miss_my_own, 2, 0.35):
        assert count == 4
        assert "4 of 10 images cannot be read, more than images.corrupt_share = 0.35 allows: " in said


def test_too_many_corrupt_images_end_the_run(folder: Path) -> None:
    corrupt(folder / "train" / "1" / "002.png")
    corrupt(folder / "train" / "2" / "000.png")
    loader = ImageData(settings(folder, corrupt_share=0.1)).train
    with pytest.raises(UserError, match=r"2 of 12 images cannot be read, more than images.corrupt_share = 0.1 allows"):
        list(loader.load([[6], [8]]))


def test_images_kept_in_memory_are_read_once(folder: Path) -> None:
    loader = ImageData(settings(folder, keep_in_memory=True)).train
    (first,) = loader.load([[3, 4]])
    for path in (folder / "train").rglob("*.png"):
        path.unlink()
    (second,) = loader.load([[3, 4]])
    assert first["image"].equal(second["image"])
