"""Intel's OpenVINO on CPU: fuses activations into convolutions."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ptychoflow.inference_edge.backends.base import Backend
from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.backends.prediction import Prediction, prediction_of
from ptychoflow.inference_edge.backends.runner import ImmediateRunner, Runner
from ptychoflow.inference_edge.backends.staging import Staging
from ptychoflow.inference_edge.backends.torchscript import trace
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision


class OpenVinoBackend(Backend):
    """Compiles the network's script, without a detour over a file."""

    name = BackendName.OPENVINO

    @classmethod
    def obstacle(cls, device: torch.device) -> str | None:
        """Return why OpenVINO cannot be used: not on a CPU, or not installed."""
        if device.type != "cpu":
            return f"it runs on the CPU only, and edge.device is {device.type}"
        if find_spec("openvino") is None:
            return "it is not installed: pip install 'ptychoflow[openvino]'"
        return None

    def prepare(self, network: FrameNetwork) -> Runner:
        """Trace, convert and compile; about a quarter of a second."""
        # imported here because it is optional; `openvino.convert_model` would report usage to its makers
        from openvino import Core, PartialShape, Type  # noqa: PLC0415
        from openvino.frontend import FrontEndManager  # noqa: PLC0415
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # noqa: PLC0415

        traced = trace(network, device=self.device)
        example = torch.ones((1, *network.config.frame_shape_px))
        # must outlive the conversion
        decoder = TorchScriptPythonDecoder(traced, example_input=(example,))
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
        counts_input = model.inputs[0].get_node()
        counts_input.set_element_type(Type.f32)
        counts_input.set_partial_shape(PartialShape([-1, *network.config.frame_shape_px]))
        model.validate_nodes_and_infer_types()
        compiled = Core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": self.threads,
                "NUM_STREAMS": 1,
                "ENABLE_CPU_PINNING": False,
                "INFERENCE_PRECISION_HINT": "bf16" if self.precision is Precision.BFLOAT16 else "f32",
            },
        )
        staging = Staging(self.batch_max)
        request, channels = compiled.create_infer_request(), len(compiled.outputs)

        def run(counts: npt.NDArray[Any]) -> Prediction:
            request.infer([staging.float32(counts).numpy()], share_inputs=True)
            return prediction_of([np.array(request.get_output_tensor(channel).data) for channel in range(channels)])

        return ImmediateRunner(run)
