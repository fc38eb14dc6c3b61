"""The buffer is a library of its own: PyTorch and NumPy are all that it needs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

from distributions import files_of

ROOT = Path(__file__).parents[2]
OURS = ("psutil", "msgspec", "pydantic", "scipy", "zmq", "h5py", "ucxx")


class OnlyThese:
    """Finds nothing, and lets nothing be found but these packages and Python's own."""

    def __init__(self, names: set[str]) -> None:
        self._names = names | sys.stdlib_module_names

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}: refused by this test", name=name)
        return None


def brought_by_torch() -> set[str]:
    """The names that importing finds of torch, of numpy and of what they require."""
    return {"ptychoflow"} | {name.removesuffix(".py") for name in files_of("torch", "numpy")}


def use_the_buffer() -> None:
    sys.meta_path.insert(0, OnlyThese(brought_by_torch()))  # type: ignore[arg-type]
    torch = importlib.import_module("torch")
    buffer = importlib.import_module("ptychoflow.buffer")
    for name in buffer.__all__:
        getattr(buffer, name)
    schema = buffer.Schema(number=buffer.Field((), "int64"))
    with buffer.RehearsalBuffer(schema, capacity=8, representatives=4, candidates=4, policy="herding") as rehearsal:
        rehearsal.offer({"number": torch.arange(4)}, features=torch.ones(4, 2))
        assert len(rehearsal.take()) == 4
        rehearsal.state_dict()
    loaded = [name for name in OURS if name in sys.modules]
    refused = []
    for name in OURS:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            refused.append(name)
    sys.stdout.write(f"loaded {loaded}, refused {len(refused)}\n")


def test_it_needs_torch_and_numpy_alone() -> None:
    done = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"loaded [], refused {len(OURS)}\n"), done.stderr


def test_everything_public_is_documented() -> None:
    buffer = importlib.import_module("ptychoflow.buffer")
    for name in buffer.__all__:
        thing = getattr(buffer, name)
        if isinstance(thing, type):
            assert thing.__doc__, name
            for method, function in vars(thing).items():
                if not method.startswith("_") and callable(function):
                    assert function.__doc__, f"{name}.{method}"


if __name__ == "__main__":
    use_the_buffer()
