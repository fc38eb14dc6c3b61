"""Start from weights that exist: an earlier run's weights file, or a published PyTorch state dict."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.models.earlier_weights import load_earlier_weights
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.weights_file import read_weights


def load_initial_weights(network: FrameNetwork, path: Path) -> None:
    """Load `path` into `network` strictly.

    A `.safetensors` file of ours replaces everything, `input_scale` too. A `.pth` or `.pt` state dict (keys
    `encoder.N`, `decoder1.N`, `decoder2.N`) replaces the PtychoNN and leaves the input transform as it is.

    Raises:
        UserError: the file cannot be read or belongs to another layout.
    """
    if path.suffix == ".safetensors":
        advice = "set trainer.model and retrieval.target_shape_px accordingly"
        load_earlier_weights(network, path, config=network.config, read=read_weights, advice=advice)
        return
    try:
        _load_published(network, path)
    except OSError as error:
        raise UserError(f"cannot read initial weights {path}: {error.strerror or error}") from error


def _load_published(network: FrameNetwork, path: Path) -> None:
    state = _read_state_dict(path)
    try:
        network.ptychonn.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} does not fit trainer.model: {reason}; the edge model is heads = 'phase', "
            "levels = 4, width = 16, fold = 1, batch_norm = false"
        ) from error


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    refused = f"{path} is not a PyTorch state dict of plain tensors; give a .safetensors or a .pth file"
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise UserError(refused)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(refused) from error
    if not isinstance(state, dict):
        raise UserError(refused)
    return state
