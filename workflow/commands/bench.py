"""`ptychoflow bench`: measures the project's code beside a bare counterpart."""

from __future__ import annotations

import typer

from workflow.commands.options import JsonOption, SetOption

app = typer.Typer(help="Measure a part beside a bare counterpart.", rich_markup_mode=None)


@app.command()
def stream(json_file: JsonOption = None) -> int:
    """Frames per second from the publisher to an edge and one rank, beside bare ZeroMQ sockets."""
    from workflow.benchmarks.results import tell
    from workflow.benchmarks.stream import bench_stream

    return tell(bench_stream(), json_file)


@app.command()
def train(assignments: SetOption = None, json_file: JsonOption = None) -> int:
    """Samples per second of the trainer's loop, beside a bare PyTorch loop of the same model and batch.

    Of the configuration, the section trainer counts: --set trainer.strategy=derpp.
    """
    from trainer.benchmark import bench_train
    from workflow.benchmarks.results import tell
    from workflow.config import load_config, option_table

    config = load_config(assignments=assignments or (), options=option_table(source__kind="simulation"))
    return tell(bench_train(settings=config.trainer), json_file)
