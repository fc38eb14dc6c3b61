"""Names of the backends; importing them loads none."""

from __future__ import annotations

from enum import StrEnum


class BackendName(StrEnum):
    """Ways to run a network."""

    AUTO = "auto"
    """The fastest of those that run here, by a short measurement with the first weights; the choice is logged."""
    EAGER = "eager"
    """PyTorch, operation by operation."""
    TORCHSCRIPT = "torchscript"
    """Traced and frozen by PyTorch: batch norm is folded into the convolutions."""
    OPENVINO = "openvino"
    """Compiled by OpenVINO, on CPU; needs the extra `openvino`."""
    CUDA_GRAPH = "cuda_graph"
    """PyTorch, recorded once and replayed as a whole, on CUDA."""
