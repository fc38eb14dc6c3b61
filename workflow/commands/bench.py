"""`ptychoflow bench`: measures the project's code beside a bare counterpart."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Annotated, Literal

import typer

from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.commands.options import JsonOption, SetOption

app = typer.Typer(rich_markup_mode=None)


@app.callback()
def _ended_in_order(context: typer.Context) -> None:
    """Measure a part beside a bare counterpart."""
    from ptychoflow.workflow.launching.part_process import interrupted_by_signals

    context.with_resource(interrupted_by_signals())  # a process that is killed leaves those that it has started


@app.command()
def stream(json_file: JsonOption = None) -> int:
    """Frames per second from the publisher to an edge and one rank, beside bare ZeroMQ sockets."""
    from ptychoflow.workflow.benchmarks.results import tell
    from ptychoflow.workflow.benchmarks.stream import bench_stream

    return tell(bench_stream(), json_file)


@app.command()
def live(json_file: JsonOption = None) -> int:
    """Frames per second from a simulated detector through decoding and joining, beside the bare decoder."""
    from ptychoflow.workflow.benchmarks.live import bench_live
    from ptychoflow.workflow.benchmarks.results import tell

    return tell(bench_live(), json_file)


@app.command()
def train(assignments: SetOption = None, json_file: JsonOption = None) -> int:
    """Samples per second of the trainer's loop, beside a bare PyTorch loop of the same model and batch.

    Of the configuration, the section trainer counts: --set trainer.strategy=derpp.
    """
    from ptychoflow.workflow.benchmarks.results import tell
    from ptychoflow.workflow.benchmarks.train import bench_train
    from ptychoflow.workflow.configuration.config import load_scan_config, option_table

    config = load_scan_config(assignments=assignments or (), options=option_table(source__kind="simulation"))
    return tell(bench_train(settings=config.trainer), json_file)


@app.command()
def intake(json_file: JsonOption = None) -> int:
    """Samples per second that a rank takes in between its socket and the training step, beside plain copies."""
    from ptychoflow.workflow.benchmarks.intake import bench_intake
    from ptychoflow.workflow.benchmarks.results import tell

    return tell(bench_intake(), json_file)


@app.command()
def edge(
    *,
    endurance: Annotated[
        bool, typer.Option("--endurance", help="Instead: memory over a scan of 20,000 frames, about two minutes.")
    ] = False,
    json_file: JsonOption = None,
) -> int:
    """Frames per second and latency of the edge with each backend, beside the bare model and phase retrieval."""
    from ptychoflow.workflow.benchmarks.edge import bench_edge
    from ptychoflow.workflow.benchmarks.edge_endurance import bench_endurance
    from ptychoflow.workflow.benchmarks.results import tell

    return tell(bench_endurance() if endurance else bench_edge(), json_file)


@app.command()
def drift(
    *,
    seeds: Annotated[int, typer.Option(min=1, help="Scans, each with specimens of its own.")] = 3,
    json_file: JsonOption = None,
) -> int:
    """Frames until a run that monitors sees another specimen, without ground truth and with; about 3 min."""
    from ptychoflow.workflow.benchmarks.drift import bench_drift
    from ptychoflow.workflow.benchmarks.results import tell

    return tell(bench_drift(seeds=seeds), json_file)


@app.command()
def classification(
    *,
    preset: Annotated[
        str, typer.Option(help="Of `experiment classification`; its network, batch and strategy.")
    ] = "thesis-imagenet-resnet50",
    assignments: SetOption = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps per round.")] = 20,
    json_file: JsonOption = None,
) -> int:
    """Samples per second of the trainer's loop on synthetic images, beside a bare PyTorch loop; meant for a GPU."""
    from ptychoflow.workflow.benchmarks.classification import bench_images
    from ptychoflow.workflow.benchmarks.results import tell
    from ptychoflow.workflow.experiments.classification.settings import ClassificationExperiment
    from ptychoflow.workflow.experiments.configuration import load_experiment

    config = load_experiment(
        ClassificationExperiment, "classification", preset=preset, file=None, assignments=assignments or (), options={}
    )
    return tell(bench_images(config.training, config.images, steps=steps), json_file)


@app.command()
def buffer(
    *,
    ranks: Annotated[
        list[int] | None, typer.Option(min=1, help="Processes; may be repeated. Default: 2 and 4.")
    ] = None,
    transport: Annotated[Literal["ucx", "tcp"] | None, typer.Option(help="Default: one after the other.")] = None,
    width: Annotated[int, typer.Option(min=0, help="Of PtychoNN at 128 px; 0: measure draws only.")] = 32,
    steps: Annotated[int, typer.Option(min=1, help="Training steps per block, of thirty blocks per case.")] = 3,
    device: Annotated[Literal["cuda", "cpu"], typer.Option(help="Where training runs.")] = "cpu",
    thorough: Annotated[bool, typer.Option("--thorough", help="Train also where ranks outnumber cores.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out how cost grows with ranks and draws.")] = False,
    torchrl: Annotated[bool, typer.Option("--torchrl", help="Compare with torchrl's replay buffer as well.")] = False,
    json_file: JsonOption = None,
) -> int:
    """What the rehearsal buffer costs, beside memcpy and beside training without it; about 12 min on two cores."""
    from ptychoflow.workflow.benchmarks.buffer import bench_buffer
    from ptychoflow.workflow.benchmarks.results import tell
    from ptychoflow.workflow.json_results import is_ordinary, write_results

    if torchrl and find_spec("torchrl") is None:
        raise UserError("torchrl is not installed, with which --torchrl compares: pip install torchrl")
    measured = bench_buffer(
        ranks=ranks or (2, 4),
        transports=("ucx", "tcp") if transport is None else (transport,),
        width=width,
        train_crowded=thorough,
        steps=steps,
        scaling=not quick,
        device=device,
        torchrl=torchrl,
        after_case=partial(write_results, json_file=json_file) if json_file and is_ordinary(json_file) else None,
    )
    return tell(measured, json_file)


@app.command()
def gpu(
    *,
    device: Annotated[Literal["cuda", "cpu"], typer.Option(help="cpu: what needs no GPU.")] = "cuda",
    json_file: JsonOption = None,
) -> int:
    """Whether everything that a GPU does is right and quick: PASS, FAIL or SKIPPED per section, in 8 min at most."""
    import torch

    from ptychoflow.streaming.device import Device, use_cuda
    from ptychoflow.workflow.benchmarks.gpu.bench import bench_gpu
    from ptychoflow.workflow.benchmarks.gpu.section import Outcome
    from ptychoflow.workflow.benchmarks.results import tell

    use_cuda(Device(device), found=torch.cuda.device_count(), setting="--device")

    def say(name: str, outcome: Outcome) -> None:
        typer.echo(f"{outcome.status.value:8}{name} {outcome.seconds:.1f} s {outcome.reason}".rstrip())

    return tell(bench_gpu(torch.device(device), tell=say), json_file)
