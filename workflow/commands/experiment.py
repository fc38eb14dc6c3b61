"""`ptychoflow experiment`: strategies beside each other on the same stream."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from ptychoflow.workflow.commands.options import ConfigOption, JsonOption, SetOption

app = typer.Typer(rich_markup_mode=None)


@app.callback()
def _ended_in_order(context: typer.Context) -> None:
    """Compare strategies on the same stream, with several seeds."""
    from ptychoflow.workflow.launching.part_process import interrupted_by_signals

    context.with_resource(interrupted_by_signals())  # a process that is killed leaves those that it has started


@app.command()
def ptychography(
    scan: Annotated[Path | None, typer.Argument(help="Recorded scan (HDF5), learnt first.", metavar="[SCAN]")] = None,
    *,
    preset: Annotated[
        str, typer.Option(help="small, labels, measured (SCAN, then simulations) or thesis (for GPUs).")
    ] = "small",
    config: ConfigOption = None,
    assignments: SetOption = None,
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", help="er, derpp, memoriser …; the manual lists them. May be repeated."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Repetitions, for mean and spread.")] = None,
    ranks: Annotated[int | None, typer.Option(min=1, help="Processes of each training.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the results; one that was begun is gone on with.", metavar="DIR"),
    ] = None,
    json_file: JsonOption = None,
) -> int:
    """Learn a scan perspective after perspective by several strategies, and image a perspective held out."""
    from ptychoflow.workflow.configuration.config import option_table
    from ptychoflow.workflow.experiments.configuration import load_experiment
    from ptychoflow.workflow.experiments.ptychography.experiment import Ptychography
    from ptychoflow.workflow.experiments.ptychography.settings import PtychographyExperiment
    from ptychoflow.workflow.experiments.results import Results
    from ptychoflow.workflow.experiments.runner import run_experiment
    from ptychoflow.workflow.json_results import write_results

    options = option_table(
        source__kind=None if scan is None else "replay",
        source__path=None if scan is None else str(scan),
        experiment__methods=methods or None,
        experiment__seeds=seeds,
        trainer__ranks=ranks,
    )
    settings = load_experiment(
        PtychographyExperiment,
        "ptychography",
        preset=preset,
        file=config,
        assignments=assignments or (),
        options=options,
    )
    folder = out or Path("runs") / f"experiment-ptychography-{preset}"
    file = folder / "results.json"
    experiment = Ptychography(settings, folder=folder)
    results = Results(experiment, preset=preset, file=file)
    table = run_experiment(experiment, results, resume=results.are_begun)
    table.write(folder / "table.md")
    write_results(results.content, json_file)
    return 0


@app.command()
def classification(
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
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the results in the JSON file and go on, also in a training.")
    ] = False,
    json_file: JsonOption = None,
) -> int:
    """Class-incremental image classification: accuracy, forgetting and time of each strategy.

    Results are written to --json FILE after every training; plots stand beside them. There the training under way has
    a folder of checkpoints, too: ranks that are killed go on from the last one, and so does --resume. A pipe or a
    terminal, such as /dev/stdout, gets the results at the end alone.
    Exit status 1 if a target is missed.
    """
    from ptychoflow.workflow.configuration.config import option_table
    from ptychoflow.workflow.experiments.classification.experiment import Classification
    from ptychoflow.workflow.experiments.classification.settings import ClassificationExperiment
    from ptychoflow.workflow.experiments.configuration import load_experiment
    from ptychoflow.workflow.experiments.results import Results
    from ptychoflow.workflow.experiments.runner import run_experiment
    from ptychoflow.workflow.json_results import is_ordinary, write_results

    settings = load_experiment(
        ClassificationExperiment,
        "classification",
        preset=preset,
        file=config,
        assignments=assignments or (),
        options=option_table(images__folder=str(folder) if folder is not None else None),
    )
    kept = json_file if json_file is not None and is_ordinary(json_file) else None
    with working_folder(kept) as cases:
        experiment = Classification(settings, folder=cases, json_file=kept)
        results = Results(experiment, preset=preset, file=kept)
        run_experiment(experiment, results, resume=resume)
    if kept is None:
        write_results(results.content, json_file)
    return 0 if all(target["met"] for target in results.content["targets"]) else 1


@contextmanager
def working_folder(json_file: Path | None) -> Iterator[Path]:
    """Yield the folder of the trainings: beside the results, gone when all are done; or a temporary one."""
    if json_file is None:
        with TemporaryDirectory(prefix="ptychoflow-experiment-") as temporary:
            yield Path(temporary)
        return
    folder = json_file.with_name(f"{json_file.stem}-checkpoints")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
