"""Positions that are known before, from files of every kind."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from pydantic import ValidationError

from ptychoflow.acquisition.detectors.arrivals import Malformed, PositionsKnown
from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.acquisition.detectors.position_table.connection import PositionTableConnection
from ptychoflow.acquisition.detectors.position_table.decoder import PositionTableDecoder
from ptychoflow.acquisition.detectors.position_table.settings import PositionTableSettings
from ptychoflow.streaming.errors import UserError

YX_UM = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]])


def settings(file: Path, **table: Any) -> PositionTableSettings:
    return PositionTableSettings.model_validate({"table": {"file": str(file), **table}})


def known(its_settings: PositionTableSettings) -> PositionsKnown:
    """What the decoder makes of what the connection delivers before it is stopped."""
    messages: list[Sequence[Part]] = []
    stop = threading.Event()

    def deliver(parts: Sequence[Part]) -> None:
        messages.append(parts)
        stop.set()

    PositionTableConnection(its_settings).drain(deliver, stop)
    (parts,) = messages
    assert not PositionTableConnection.begins_series(parts)
    (arrival,) = PositionTableDecoder(its_settings).decode([memoryview(part) for part in parts])
    assert isinstance(arrival, PositionsKnown)
    return arrival


@pytest.mark.parametrize("ending", [".txt", ".npy", ".h5"])
def test_the_table_holds_for_every_series(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"positions{ending}"
    table: dict[str, Any] = {"unit": "um", "columns": "yx"}
    if ending == ".txt":
        np.savetxt(path, YX_UM)
    elif ending == ".npy":
        np.save(path, YX_UM)
    else:
        with h5py.File(path, "w") as file:
            file["scan/positions"] = YX_UM
            file["scan/positions"].attrs["units"] = "um"
        table = {"path": "/scan/positions", "columns": "yx"}
    arrival = known(settings(path, **table))
    assert arrival.numbers.tolist() == [0, 1, 2]
    np.testing.assert_allclose(arrival.positions_m, YX_UM * 1e-6)


def test_rows_with_the_same_number_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "positions.txt"
    path.write_text("trigger,x,y\n7,1,2\n5,3,4\n7,3,4\n")
    index = {"column": "trigger", "origin": 5}
    arrival = known(settings(path, column_y="y", column_x="x", unit="mm", sign_x=-1, index=index))
    assert arrival.numbers.tolist() == [0, 2]
    np.testing.assert_allclose(arrival.positions_m, [[4e-3, -3e-3], [3e-3, -2e-3]])


def test_what_cannot_be_a_table_is_said(tmp_path: Path) -> None:
    path = tmp_path / "positions.txt"
    np.savetxt(path, YX_UM)
    with pytest.raises(UserError, match="unit"):
        known(settings(path))
    with pytest.raises(UserError, match="no such file"):
        known(settings(tmp_path / "absent.txt", unit="um"))
    with pytest.raises(UserError, match="more than most_positions"):
        known(settings(path, unit="um").model_copy(update={"most_positions": 2}))
    for wrong in (
        {"file": "a.txt", "unit": "px"},
        {"path": "/a", "unit": "um"},
        {"file": "a", "foreshortened_x": True},
    ):
        with pytest.raises(ValidationError):
            PositionTableSettings.model_validate({"table": wrong})


def test_a_damaged_message_is_told() -> None:
    decoder = PositionTableDecoder(settings(Path("positions.txt")))
    for parts in ([], [b""], [b"12345678"], [b"1234567", bytes(16)], [bytes(8), bytes(24)], [b"", b"", b""]):
        (said,) = decoder.decode(parts)
        assert isinstance(said, Malformed)
