"""`ptychoflow experiment`: strategies beside each other on the same stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workflow.commands.options import ConfigOption, JsonOption, SetOption

app = typer.Typer(help="Compare strategies on the same stream, with several seeds.", rich_markup_mode=None)


@app.command()
def ptychography(
    out: Annotated[Path, typer.Option(help="Folder of the experiment; called again, it goes on there.")] = Path(
        "experiment"
    ),
    *,
    preset: Annotated[str, typer.Option("--preset", help="small or thesis.", metavar="NAME")] = "small",
    config: ConfigOption = None,
    assignments: SetOption = None,
    json_file: JsonOption = None,
) -> None:
    """Validation losses and the held-out perspective of each strategy, beside the constant prediction."""
    from workflow.experiments.configuration import load_experiment
    from workflow.experiments.ptychography.experiment import run_experiment
    from workflow.experiments.ptychography.settings import PtychographyExperiment
    from workflow.experiments.telling import write_results

    settings = load_experiment(
        PtychographyExperiment,
        "ptychography",
        preset=preset,
        file=config,
        assignments=assignments or (),
        options={},
    )
    write_results(run_experiment(settings, preset=preset, folder=out), json_file)


@app.command()
def imagenet(
    folder: Annotated[
        Path | None, typer.Argument(help="Images: train/CLASS/* and val/CLASS/*.", metavar="FOLDER")
    ] = None,
    *,
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            help="fashion-mnist, thesis-imagenet-resnet50, thesis-imagenet-resnet18 or thesis-imagenet-ghostnet.",
            metavar="NAME",
        ),
    ] = "fashion-mnist",
    config: ConfigOption = None,
    assignments: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the results in the JSON file, run the rest.")] = False,
    json_file: JsonOption = None,
) -> int:
    """Class-incremental image classification: accuracy, forgetting and time of each strategy.

    Results are written after every training; plots stand beside them. Exit status 1 if a target is missed.
    """
    from workflow.config import option_table
    from workflow.experiments.configuration import load_experiment
    from workflow.experiments.imagenet.experiment import run_experiment
    from workflow.experiments.imagenet.settings import ImageExperiment

    settings = load_experiment(
        ImageExperiment,
        "imagenet",
        preset=preset,
        file=config,
        assignments=assignments or (),
        options=option_table(images__folder=str(folder) if folder is not None else None),
    )
    results = run_experiment(settings, preset=preset, json_file=json_file, resume=resume)
    return 0 if all(target["met"] for target in results.content["targets"]) else 1
