"""A CUDA graph: the whole network as one launch, which is what small batches on a fast GPU are short of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ptychoflow.inference_edge.backends.base import Backend, Runner
from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.backends.prediction import PredictedChannels, Prediction, prediction_of
from ptychoflow.trainer.models.arithmetic import autocast
from ptychoflow.trainer.models.frame_network import FrameNetwork

WARM_UP_RUNS = 3


class CudaGraphBackend(Backend):
    """Records one batch of `batch_max` frames; smaller batches are filled up with dark frames."""

    name = BackendName.CUDA_GRAPH

    @classmethod
    def obstacle(cls, device: torch.device) -> str | None:
        """Return why there is no CUDA graph: not on CUDA."""
        return None if device.type == "cuda" else f"it runs on CUDA only, and edge.device is {device.type}"

    @torch.no_grad()
    def prepare(self, network: FrameNetwork) -> Runner:
        """Run the network a few times on a stream of its own, as recording asks for, and record it."""
        ready = PredictedChannels(network).eval().to(self.device).to(memory_format=torch.channels_last)
        counts_in = torch.zeros((self.batch_max, *network.config.frame_shape_px), device=self.device)
        aside = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(aside), autocast(self.precision, self.device):
            for _ in range(WARM_UP_RUNS):
                ready(counts_in)
        torch.cuda.current_stream(self.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # another thread images frames meanwhile, which the mode "global" would forbid
        recording = torch.cuda.graph(graph, capture_error_mode="thread_local")
        with recording, autocast(self.precision, self.device, cached=False):
            channels_out = ready(counts_in)

        @torch.inference_mode()
        def run(counts: npt.NDArray[np.float32]) -> Prediction:
            frames = len(counts)
            counts_in[:frames].copy_(torch.from_numpy(counts))
            graph.replay()
            return prediction_of([channel[:frames].float().cpu().numpy() for channel in channels_out])

        return run
