"""The edge and the trainer at a beam's rate: do they keep up, and how late are images?"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.streaming.device import Device
from ptychoflow.streaming.private_folder import private_folder
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.settings import BufferSettings, StrategyName
from ptychoflow.workflow.benchmarks.beamline import Beamline, random_weights
from ptychoflow.workflow.benchmarks.edge_process import EdgeProcess
from ptychoflow.workflow.benchmarks.gpu.section import Figures, Setup, Skipped, Unmet
from ptychoflow.workflow.benchmarks.train import bench_train

FRAME_PX, MESSAGE_FRAMES = 128, 64
EDGE_RATES_HZ = (2_000, 20_000)
SECONDS = 5.0
KEPT_UP = 0.95
"""Share of the rate at which frames are imaged, from the first one sent to the last one imaged."""
TRAINING_RATE_HZ = 2_000


def edge(setup: Setup) -> Figures:
    """Send frames to a whole edge at 2 kHz and at 20 kHz; on a CPU at what it may reach."""
    if setup.short:
        raise Skipped("needs more than a moment")
    device = Device.CUDA if setup.device.type == "cuda" else Device.CPU
    rates_hz = EDGE_RATES_HZ if setup.device.type == "cuda" else (50,)
    settings = EdgeSettings(device=device, backend=BackendName.AUTO, batch_max=MESSAGE_FRAMES)
    weights = random_weights(ModelSettings(), FRAME_PX)
    figures: Figures = {"frame_px": FRAME_PX}
    late = []
    for rate_hz in rates_hz:
        with EdgeProcess(weights) as process, tempfile.TemporaryDirectory() as folder, private_folder() as sockets:
            network = NetworkSettings(sockets_dir=sockets)
            line = Beamline(network, Path(folder), frame_px=FRAME_PX, message_frames=MESSAGE_FRAMES)
            with line:
                process.serve(settings, network, Path(folder))
                line.publish(weights)
                line.wait_until_ready()
                frames = int(rate_hz * SECONDS)
                began_s = time.perf_counter()
                line.send(frames, frames_per_s=rate_hz)
                line.wait_until_imaged()
                imaged_per_s = frames / (time.perf_counter() - began_s)
                line.end_scan()
                process.wait()
        counts = line.counts()
        figures |= {
            f"imaged_per_s_at_{rate_hz}_hz": imaged_per_s,
            f"frame_to_image_p50_ms_at_{rate_hz}_hz": counts.frame_to_image_p50_ms,
            f"frame_to_image_p99_ms_at_{rate_hz}_hz": counts.frame_to_image_p99_ms,
        }
        if imaged_per_s < KEPT_UP * rate_hz:
            late.append(f"{imaged_per_s:.0f} of {rate_hz} frames/s are imaged")
    if late and setup.device.type == "cuda":
        raise Unmet("; ".join(late), figures)
    return figures


def training(setup: Setup) -> Figures:
    """Train with DER++ on samples that wait, through intake and buffer: enough for a stream of 2 kHz?"""
    device = Device.CUDA if setup.device.type == "cuda" else Device.CPU
    batch = 4 if setup.short else 64
    buffer = BufferSettings(capacity=1000, representatives=24, candidates=14)
    settings = TrainerSettings(strategy=StrategyName.DERPP, batch_size=batch, buffer=buffer, device=device)
    if setup.short:
        settings = settings.model_copy(update={"model": ModelSettings(width=2, levels=2)})
    on_gpu = setup.device.type == "cuda"
    measured = bench_train(
        frame_px=FRAME_PX if on_gpu else 16, steps=40 if on_gpu else 2, rounds=3 if on_gpu else 1, settings=settings
    )
    case = measured["results"][0]
    streamed_per_s = case["ours_samples_per_s"] * batch / (batch + case["representatives"])
    figures = {
        "frame_px": case["frame_px"],
        "batch": batch,
        "representatives": case["representatives"],
        "samples_per_s": case["ours_samples_per_s"],
        "bare_samples_per_s": case["bare_samples_per_s"],
        "stream_samples_per_s": streamed_per_s,
        "step_ms": 1000 * (batch + case["representatives"]) / case["ours_samples_per_s"],
    }
    if on_gpu and streamed_per_s < TRAINING_RATE_HZ:
        raise Unmet(f"{streamed_per_s:.0f} samples/s of the stream are trained on, of {TRAINING_RATE_HZ}", figures)
    return figures
