"""The state of the run for Prometheus."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from ptychoflow.dashboard import models
from ptychoflow.dashboard.state import DashboardState
from ptychoflow.streaming.events import PartState

FRAME_ENDS = ("trained", "validation", "void", "held_out", "excluded", "unlabelled", "rejected", "unplaced")


class StateCollector:
    """Makes metrics of the present whenever they are asked for."""

    def __init__(self, state: DashboardState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; those that are not known yet are left out."""
        present = self._state.present(now_s=time.time())
        yield from _frames(present.frames)
        yield from _parts(present)
        yield from _training(present)
        yield from _edge(present)
        yield from _buffer(present.buffer)
        yield from _quality(present.held_out)


def metrics_text(state: DashboardState) -> bytes:
    """Return the metrics in the text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(StateCollector(state))
    return generate_latest(registry)


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(f"ptychoflow_{name}", help_text, value=value)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"ptychoflow_{name}", help_text, value=value)


def _frames(frames: models.Frames) -> Iterator[Metric]:
    yield _counter("frames_acquired", "Frames acquired.", frames.acquired)
    yield _counter("frames_imaged", "Frames imaged on arrival.", frames.inferred)
    yield _counter("frames_refreshed", "Times that a frame was imaged again.", frames.refreshed)
    yield _gauge("frames_unaccounted", "Frames on their way; lost, once the run has ended.", frames.lost)
    ends = CounterMetricFamily("ptychoflow_frames_ended", "Frames by their end.", labels=["end"])
    for end in FRAME_ENDS:
        ends.add_metric([end], getattr(frames, end))
    yield ends


def _parts(present: models.Present) -> Iterator[Metric]:
    up = GaugeMetricFamily("ptychoflow_part_up", "1 while a part has not failed.", labels=["part"])
    heard = GaugeMetricFamily("ptychoflow_part_heard_seconds", "When a part was heard of last.", labels=["part"])
    for part in present.parts:
        up.add_metric([part.part], float(part.state is not PartState.FAILED))
        heard.add_metric([part.part], part.last_heard_s)
    yield from (up, heard)


def _training(present: models.Present) -> Iterator[Metric]:
    if present.training is not None:
        yield _counter("training_steps", "Training steps.", present.training.step)
        yield _gauge("training_loss", "Loss of the newest step reported.", present.training.loss)
        yield _gauge("training_samples_per_second", "Samples trained on.", present.training.samples_per_s)
    truth = present.ground_truth
    yield _counter("ground_truth_seconds", "Time spent on phase retrieval.", truth.seconds)
    yield _gauge("weights_version_applied", "Version that the edge infers with.", present.weights.applied or 0)
    yield _counter("weights_rejected", "Versions that the edge refused.", present.weights.rejected)


def _edge(present: models.Present) -> Iterator[Metric]:
    if present.inference is None:
        return
    yield _gauge("edge_frames_per_second", "Frames imaged.", present.inference.frames_per_s)
    if not math.isfinite(present.inference.frame_to_image_p50_ms):
        return
    latency = GaugeMetricFamily("ptychoflow_frame_to_image_seconds", "From frame to image.", labels=["quantile"])
    latency.add_metric(["0.5"], present.inference.frame_to_image_p50_ms / 1000)
    latency.add_metric(["0.99"], present.inference.frame_to_image_p99_ms / 1000)
    yield latency


def _buffer(ranks: list[models.RankBuffer]) -> Iterator[Metric]:
    size = GaugeMetricFamily("ptychoflow_buffer_items", "Items in the rehearsal buffer.", labels=["rank"])
    hidden = GaugeMetricFamily("ptychoflow_buffer_hidden_fraction", "Share of its work hidden.", labels=["rank"])
    for rank in ranks:
        size.add_metric([str(rank.rank)], rank.size)
        hidden.add_metric([str(rank.rank)], rank.hidden_fraction)
    yield from (size, hidden)


def _quality(held_out: list[models.HeldOut]) -> Iterator[Metric]:
    psnr = GaugeMetricFamily("ptychoflow_held_out_psnr_db", "Over held-out frames.", labels=["perspective", "channel"])
    for row in held_out:
        psnr.add_metric([str(row.perspective), "amplitude"], row.quality.psnr_amplitude_db)
        psnr.add_metric([str(row.perspective), "phase"], row.quality.psnr_phase_db)
    yield psnr
