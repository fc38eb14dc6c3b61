"""A CUDA graph: the whole network as one launch, which is what small batches on a fast GPU are short of."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ptychoflow.inference_edge.backends.base import Backend
from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.backends.prediction import PredictedChannels
from ptychoflow.inference_edge.backends.runner import Runner
from ptychoflow.trainer.models.arithmetic import autocast
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.models.ptychonn_settings import NetworkConfig

WARM_UP_RUNS = 3
RECORDINGS = 2
"""One images frames while another tries new weights."""


Record = Callable[[nn.Module, Tensor, Precision], tuple[Callable[[], None], Sequence[Tensor]]]
"""Records one run of a network on counts (n, y, x); returns what repeats it, and the channels that this fills."""


class CudaGraphBackend(Backend):
    """Records one batch of `batch_max` frames; smaller batches are filled up with dark frames.

    Recording takes tenths of a second and stalls what runs beside it, so it is done twice for every layout of a
    network and never again: new weights are copied into one of the two recordings.
    """

    name = BackendName.CUDA_GRAPH

    def __init__(self, device: torch.device, precision: Precision, *, threads: int, batch_max: int) -> None:
        super().__init__(device, precision, threads=threads, batch_max=batch_max)
        self._recorded: tuple[NetworkConfig, Recordings] | None = None

    @classmethod
    def obstacle(cls, device: torch.device) -> str | None:
        """Return why there is no CUDA graph: not on CUDA."""
        return None if device.type == "cuda" else f"it runs on CUDA only, and edge.device is {device.type}"

    def prepare(self, network: FrameNetwork) -> Runner:
        """Move the network to the device, and record it if none of its layout was."""
        ready = PredictedChannels(network).eval().to(self.device).to(memory_format=torch.channels_last)
        if self._recorded is None or self._recorded[0] != network.config:
            counts_in = torch.zeros((self.batch_max, *network.config.frame_shape_px), device=self.device)
            self._recorded = network.config, Recordings(ready, counts_in, self.precision, record=record_graph)
        recordings = self._recorded[1]

        return self._runner(partial(recordings.run, ready))


class Recordings:
    """Several recordings of one layout of a network, into which the weights of any such network can be copied.

    Args:
        network: has the layout.
        counts_in: (n, y, x), where the recordings read.
        precision: FLOAT32 or BFLOAT16.
        record: makes a recording.
    """

    def __init__(self, network: nn.Module, counts_in: Tensor, precision: Precision, *, record: Record) -> None:
        self._lock = threading.Lock()
        self._recordings = [_Recording(network, counts_in, precision, record) for _ in range(RECORDINGS)]
        """The one used last comes last."""

    def run(self, network: nn.Module, counts: Tensor) -> list[Tensor]:
        """Run `network` on counts (n, y, x); from several threads at once if need be. Returns its channels, float32."""
        with self._lock:
            recording = next((one for one in self._recordings if one.holds is network), self._recordings[0])
            self._recordings.remove(recording)
            self._recordings.append(recording)
        return recording.run(network, counts)


class _Recording:
    def __init__(self, network: nn.Module, counts_in: Tensor, precision: Precision, record: Record) -> None:
        self.holds: nn.Module | None = None
        self._lock = threading.Lock()
        self._counts_in = counts_in.clone()
        own = copy.deepcopy(network)
        self._state = _tensors(own)
        self._repeat, self._channels_out = record(own, self._counts_in, precision)

    @torch.inference_mode()
    def run(self, network: nn.Module, counts: Tensor) -> list[Tensor]:
        frames = len(counts)
        with self._lock:
            if self.holds is not network:
                for mine, its in zip(self._state, _tensors(network), strict=True):
                    mine.copy_(its)
                self.holds = network
            self._counts_in[:frames].copy_(counts)
            self._repeat()
            # the next run fills the same channels
            return [channel[:frames].to(torch.float32, copy=True) for channel in self._channels_out]


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*(parameter.detach() for parameter in network.parameters()), *network.buffers()]


@torch.no_grad()
def record_graph(
    network: nn.Module, counts_in: Tensor, precision: Precision
) -> tuple[Callable[[], None], Sequence[Tensor]]:
    """Run the network a few times on a stream of its own, as recording asks for, and record it as a CUDA graph."""
    device = counts_in.device
    aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(aside), autocast(precision, device):
        for _ in range(WARM_UP_RUNS):
            network(counts_in)
    torch.cuda.current_stream(device).wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # another thread images frames meanwhile, which the mode "global" would forbid
    recording = torch.cuda.graph(graph, capture_error_mode="thread_local")
    with recording, autocast(precision, device, cached=False):
        channels_out = network(counts_in)
    return graph.replay, channels_out
