"""Settings of the dashboard."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

from ptychoflow.streaming.settings import Port, Settings


class DashboardSettings(Settings):
    """Where the dashboard listens, and how much it keeps."""

    enabled: bool = True
    """Whether `ptychoflow run` starts a dashboard."""
    host: str = "127.0.0.1"
    """Address to listen on; anything but loopback shows the run to everybody who reaches this host."""
    port: Port = 8421
    """TCP port of the page; 0 takes a free one."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names under which browsers may open the page, such as a reverse proxy's."""
    update_interval_s: PositiveFloat = 0.25
    """Shortest time between two updates to one viewer."""
    max_viewers: PositiveInt = 32
    """Viewers beyond this many are turned away."""
    series_points: int = Field(default=600, ge=16)
    """Points kept of every curve; neighbours are averaged when it is full."""
    kept_perspectives: PositiveInt = 6
    """Newest perspectives whose images can be chosen."""
    max_image_bytes: PositiveInt = 1 << 29
    """Images of older perspectives are let go beyond this, the newest perspective's never."""
