"""The command `ptychoflow`, also as `python -m ptychoflow`; the launcher starts the parts so."""

import importlib.util
import signal
import sys

NEEDED = (
    *("PIL", "fastapi", "h11", "h5py", "hdf5plugin", "jinja2", "markupsafe", "matplotlib", "msgspec", "numba"),
    *("plotly", "prometheus_client", "psutil", "ptychi", "pydantic", "rich", "safetensors", "scipy", "skimage"),
    *("tifffile", "timm", "tomli_w", "torchvision", "typer", "uvicorn", "websockets", "zmq"),
)
"""What comes with the extra `workflow`; looked for at once, so that no command breaks off later."""


def main() -> None:
    """Run the command line; or say in one line which extra is not installed, or that Ctrl-C has ended it."""
    try:
        _main()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends already
        print("ptychoflow: interrupted", file=sys.stderr)  # noqa: T201 what prints may not be imported yet
        from ptychoflow.workflow.exit_status import INTERRUPTED_STATUS  # noqa: PLC0415

        sys.exit(INTERRUPTED_STATUS)


def _main() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"ptychoflow: the command needs the extra 'workflow' ({', '.join(missing)} not found); "
            "install it with: pip install 'ptychoflow[workflow]'"
        )
    from ptychoflow.workflow.cli import main as run_command  # noqa: PLC0415

    run_command()


if __name__ == "__main__":
    main()
