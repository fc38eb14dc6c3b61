"""Configuration of a scan, wherever it comes from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ptychoflow.acquisition.detectors.settings import LiveSettings
from ptychoflow.acquisition.source_settings import ReplaySettings, SimulationSettings

ScanSourceSettings = Annotated[ReplaySettings | SimulationSettings | LiveSettings, Field(discriminator="kind")]
