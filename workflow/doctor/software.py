"""Versions, GPUs, and what UCX can use."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterator

from ptychoflow.streaming.device import available_processors
from ptychoflow.workflow.configuration.config import AnyConfig
from ptychoflow.workflow.doctor.finding import Finding, green, red, yellow
from ptychoflow.workflow.environment import version_of

SHOWN = ("ptychoflow", "torch", "ptychi", "numpy", "pyzmq", "msgspec", "h5py")


def look_at_versions() -> Iterator[Finding]:
    """Yield what is installed: this program, its libraries, Python, and the processors that it may use."""
    found = {name: version_of(name) for name in SHOWN}
    text = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    text = f"{text}, Python {platform.python_version()}, {available_processors()} processors"
    if missing := [name for name, version in found.items() if version is None]:
        yield red("versions", f"{text}; missing: {', '.join(missing)}: pip install 'ptychoflow[workflow]'")
    else:
        yield green("versions", text)


def look_at_gpus(config: AnyConfig | None) -> Iterator[Finding]:
    """Yield which GPUs PyTorch finds, and whether the configuration can do without."""
    import torch  # noqa: PLC0415  seconds

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count:
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(count))
        yield green("GPU", f"{count}: {names}; CUDA {torch.version.cuda}")
        return
    demanding = [] if config is None else [one for one in ("trainer", "edge") if getattr(config, one).device == "cuda"]
    if demanding:
        settings = " and ".join(f"{name}.device" for name in demanding)
        yield red("GPU", f"none that PyTorch finds, and {settings} = 'cuda': look at nvidia-smi, or set 'auto'")
    else:
        yield yellow("GPU", "none that PyTorch finds: processors train and image; if there is one, look at nvidia-smi")


def look_at_ucx(config: AnyConfig | None) -> Iterator[Finding]:
    """Yield whether UCX is there, and which of its transports it finds here."""
    demanded = config is not None and config.trainer.buffer.transport == "ucx"
    if importlib.util.find_spec("ucxx") is None:
        said = "not installed: the rehearsal buffer uses TCP; pip install 'ptychoflow[ucx]' for shared memory and RDMA"
        yield (red if demanded else yellow)("UCX", said)
        return
    from ptychoflow.buffer.transport.ucx import usable_transports  # noqa: PLC0415  an optional dependency

    try:
        found = usable_transports()
    except RuntimeError as error:
        said = f"it does not start ({error}): see UCX_TLS and UCX_NET_DEVICES, or set trainer.buffer.transport = 'tcp'"
        yield (red if demanded else yellow)("UCX", said)
        return
    yield green("UCX", f"{_ucx_version()}, picks from {', '.join(found)}")


def _ucx_version() -> str:
    from ucxx._lib.libucxx import get_ucx_version  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415

    return ".".join(map(str, get_ucx_version()))
