"""The configuration of a run: one section per part, resolved from a preset, a file and options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import tomli_w
from pydantic import Field, ValidationError, model_validator

from ptychoflow.acquisition.classification.settings import ClassificationSourceSettings
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.scan_settings import ScanSourceSettings
from ptychoflow.acquisition.settings import AcquisitionSettings, PublishingSettings
from ptychoflow.dashboard.outputs.settings import OutputsSettings
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.inference_edge.settings import EdgeSettings, InferenceSettings
from ptychoflow.streaming.durable_file import write_durably
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.settings import NetworkSettings, Settings
from ptychoflow.trainer.pipelines.classification.settings import ClassificationTrainerSettings
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.settings import StreamSettings
from ptychoflow.workflow.configuration.errors import explain
from ptychoflow.workflow.configuration.layers import Layer, Table, merge, parse_assignments, read_layer
from ptychoflow.workflow.configuration.pipeline_name import PipelineName
from ptychoflow.workflow.configuration.presets import read_preset
from ptychoflow.workflow.configuration.run_settings import RunSettings


class RunConfig(Settings):
    """What every run needs to know; one section per part."""

    run: RunSettings = Field(default_factory=RunSettings)
    """Name, folder, seed."""
    acquisition: PublishingSettings = Field(default_factory=PublishingSettings)
    """How frames are published."""
    trainer: StreamSettings = Field(default_factory=StreamSettings)
    """Model, strategy, rehearsal buffer, schedule."""
    edge: InferenceSettings = Field(default_factory=InferenceSettings)
    """Inference."""
    dashboard: DashboardSettings = Field(default_factory=DashboardSettings)
    """The page that shows the run."""
    network: NetworkSettings = Field(default_factory=NetworkSettings)
    """Hosts, ports and keys."""


class Config(RunConfig):
    """A run of the pipeline `ptychography`."""

    source: ScanSourceSettings
    """The scan: a file that is replayed, a simulation, or a detector."""
    acquisition: AcquisitionSettings = Field(default_factory=AcquisitionSettings)
    """How frames are published and which are held out."""
    retrieval: RetrievalSettings = Field(default_factory=RetrievalSettings)
    """Where ground truth comes from."""
    trainer: TrainerSettings = Field(default_factory=TrainerSettings)
    """Model, strategy, rehearsal buffer, schedule."""
    edge: EdgeSettings = Field(default_factory=EdgeSettings)
    """Inference, stitching and scores."""
    outputs: OutputsSettings = Field(default_factory=OutputsSettings)
    """Where images and scores go besides the page; see [](../how-to/send-images-elsewhere.md)."""

    fixed: ClassVar[tuple[str, ...]] = (
        "run.seed",
        "source",
        "acquisition.roles",
        "retrieval",
        "trainer.strategy",
        "trainer.model",
        "trainer.amplitude_scale",
    )
    """What a run cannot change once it has begun."""


class ClassificationConfig(RunConfig):
    """A run of the pipeline `classification`."""

    source: ClassificationSourceSettings
    """The folder of images, and its tasks."""
    trainer: ClassificationTrainerSettings = Field(default_factory=ClassificationTrainerSettings)
    """Network, strategy, rehearsal buffer, schedule."""

    fixed: ClassVar[tuple[str, ...]] = (
        "run.seed",
        "source",
        "trainer.strategy",
        "trainer.model",
        "trainer.image_px",
    )
    """What a run cannot change once it has begun."""

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.trainer.image_px > self.source.stored_px:
            raise ValueError(
                f"trainer.image_px = {self.trainer.image_px} must not be larger than source.stored_px = "
                f"{self.source.stored_px}"
            )
        return self


AnyConfig = Config | ClassificationConfig
CONFIG_OF_SOURCE: Mapping[str, type[AnyConfig]] = {
    "replay": Config,
    "simulation": Config,
    "live": Config,
    "images": ClassificationConfig,
}
"""What a configuration looks like, by the kind of its source."""


def load_config(
    preset: str | None = None,
    file: Path | None = None,
    assignments: Iterable[str] = (),
    *,
    options: Table | None = None,
    pipeline: PipelineName | None = None,
) -> AnyConfig:
    """Resolve a configuration: the preset, over it the file, over it `--set` assignments, over them the options.

    Args:
        preset: name of a preset, or None.
        file: a TOML file, or None.
        assignments: texts `section.key=value`.
        options: nested table made of command-line options.
        pipeline: the one that the source must be for, if it matters; `classification` also decides for a source
            without kind.

    Raises:
        UserError: one line that names every wrong key, where it was set, and the nearest valid one; or a source of
            another pipeline.
    """
    layers = [read_layer(file)] if file is not None else []
    layers += [parse_assignments(assignments), Layer("the command line", options or {})]
    if pipeline is PipelineName.CLASSIFICATION:
        layers += [Layer("--pipeline", {"source": {"kind": "images"}})]
    if preset is not None:
        layers = [read_preset(preset, later=layers), *layers]
    config = _validate(layers)
    if pipeline is PipelineName.PTYCHOGRAPHY and not isinstance(config, Config):
        raise UserError("the source is a folder of images, which is not for ptychography; name a scan")
    return config


def load_scan_config(
    preset: str | None = None,
    file: Path | None = None,
    assignments: Iterable[str] = (),
    *,
    options: Table | None = None,
) -> Config:
    """Resolve the configuration of something that is done with scans alone; otherwise like `load_config`.

    Raises:
        UserError: as `load_config`.
    """
    config = load_config(preset, file, assignments, options=options, pipeline=PipelineName.PTYCHOGRAPHY)
    if not isinstance(config, Config):
        raise AssertionError("a configuration of ptychography is a Config")
    return config


def write_config(config: RunConfig, path: Path) -> None:
    """Write the resolved configuration as TOML, in a form that `load_config` reads back to an equal one."""
    write_durably(path, tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))


def _validate(layers: list[Layer]) -> AnyConfig:
    values, origins = merge(layers)
    if "source" not in values:
        raise UserError(
            "nothing to scan: give a --config file with a [source] section; `ptychoflow run` also takes a scan file, a "
            "folder of labelled images, or a --preset"
        )
    model = _model(values["source"], origins)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise explain(error, model=model, values=values, origins=origins) from None


def _model(source: Any, origins: Mapping[str, str]) -> type[AnyConfig]:
    kind = source.get("kind") if isinstance(source, dict) else None
    if isinstance(kind, str) and kind not in CONFIG_OF_SOURCE:
        kinds = ", ".join(map(repr, CONFIG_OF_SOURCE))
        origin = origins.get("source.kind", "the configuration")
        raise UserError(f"setting source.kind = {kind!r} (from {origin}) is wrong: use one of {kinds}")
    return CONFIG_OF_SOURCE.get(kind or "", Config)


def option_table(**dotted: Any) -> Table:
    """Return a nested table from names `section__key`, without those that are None (options not given)."""
    table: Table = {}
    for name, value in dotted.items():
        if value is not None:
            section, _, key = name.partition("__")
            table.setdefault(section, {})[key] = value
    return table
