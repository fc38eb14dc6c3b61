"""Whether the parts of a run can do on this host what the configuration asks of them, before anything starts."""

from __future__ import annotations

from collections.abc import Mapping

from ptychoflow.acquisition.retrieval.engines import RETRIEVING, check_installed
from ptychoflow.dashboard.outputs.checks import check_outputs
from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.streaming.device import Device, use_cuda
from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.configuration.config import AnyConfig, Config


def check_parts(config: AnyConfig) -> None:
    """Look at what each part would refuse when it starts; blocks for PyTorch, where a GPU or a backend is asked for.

    Raises:
        UserError: a part would get nothing, a library is missing, a GPU or a backend is asked for that this host does
            not have, or a folder of the outputs cannot be written.
    """
    _require_receivers(config)
    _check_devices(config)
    if isinstance(config, Config):
        check_installed(config.retrieval.source)
        check_outputs(config.outputs, run=config.run.context())
        _check_backend(config)


def _require_receivers(config: AnyConfig) -> None:
    for name in ("edge", "trainer"):
        if not getattr(config.acquisition, name):
            raise UserError(
                f"acquisition.{name} = false is for parts that are started one by one: "
                "`ptychoflow run` starts all of them, and one that gets nothing would wait for ever"
            )


def _check_devices(config: AnyConfig) -> None:
    chosen = {"trainer.device": config.trainer.device, "edge.device": config.edge.device}
    if isinstance(config, Config) and config.retrieval.source in RETRIEVING:
        chosen["retrieval.device"] = config.retrieval.device
    require_gpus(chosen)


def require_gpus(chosen: Mapping[str, Device]) -> None:
    """Raise `UserError` where a setting asks for a GPU and this host has none; loads PyTorch only if one does."""
    asked = [setting for setting, device in chosen.items() if device is Device.CUDA]
    if asked:
        import torch  # noqa: PLC0415 takes seconds, and nothing else needs it here

        found = torch.cuda.device_count()
        for setting in asked:
            use_cuda(Device.CUDA, found=found, setting=setting)


def _check_backend(config: Config) -> None:
    if config.edge.backend is not BackendName.AUTO:
        from ptychoflow.inference_edge.backends.choice import usable_backends  # noqa: PLC0415 loads PyTorch
        from ptychoflow.inference_edge.device import choose_device  # noqa: PLC0415

        usable_backends(config.edge.backend, choose_device(config.edge.device, gpu=config.edge.gpu))
