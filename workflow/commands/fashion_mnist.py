"""`ptychoflow fashion-mnist`: a small data set of real images in the folder layout of ImageNet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SOURCE = Path("/usr/share/datasets/fashion-mnist")


def fashion_mnist(
    out: Annotated[Path, typer.Argument(help="Folder to make.", metavar="OUT")],
    *,
    source: Annotated[
        Path, typer.Option(help="Folder with the four files; Debian's dataset-fashion-mnist puts them there.")
    ] = SOURCE,
    per_class: Annotated[
        int | None, typer.Option(min=1, help="Take so many training images of each class only.", metavar="N")
    ] = None,
) -> None:
    """Write Fashion-MNIST, 70,000 images of 10 classes, as OUT/train/CLASS/*.png and OUT/val/CLASS/*.png.

    `apt install dataset-fashion-mnist` provides the files.
    """
    from ptychoflow.workflow.experiments.fashion_mnist import write_image_folder

    counts = write_image_folder(source, out, per_class=per_class)
    typer.echo(f"{out}: " + ", ".join(f"{count} images in {part}" for part, count in counts.items()))
