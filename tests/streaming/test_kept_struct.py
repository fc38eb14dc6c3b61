"""Damaged small files in a run's folder are one clear line that names the file, whatever is wrong with them."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import msgspec
import pytest

from ptychoflow.acquisition.publishing.journal import OUTCOME, Journal
from ptychoflow.acquisition.retrieval.worker import GroundTruthResult
from ptychoflow.inference_edge.classification.records import TaskRecord, TaskRecords
from ptychoflow.inference_edge.final_weights import FinalWeights
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import Weights
from ptychoflow.streaming.run_folder import RunFolder

DAMAGED = {
    "nothing": b"",
    "zero bytes": bytes(64),
    "no UTF-8": b'{"type":"skipped","perspective":3,"a\xff":1}',
    "no UTF-8 in a text": b'{"type":"\xff\xfe"}',
    "nested deeply": b'{"unknown":' + b"[" * 100_000,
    "another type": b'{"type":"skipped","perspective":"three"}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_outcome_is_said_with_its_file(tmp_path: Path, content: bytes) -> None:
    journal = Journal(tmp_path, scan="a")
    journal.record_result(GroundTruthResult(4, None, "the engine gave up"))
    (tmp_path / "0004" / OUTCOME).write_bytes(content)
    with pytest.raises(UserError, match=r"0004/outcome\.json is damaged: .*; remove its folder"):
        journal.result(4)


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_record_of_a_task_is_said_with_its_file(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder(tmp_path)
    records = TaskRecords(folder)
    records.write(TaskRecord(0, True, 9, 9, 3, 1, 2, (1, 4)))
    folder.task_file(0).write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged: .*; remove it"):
        records.read()


def test_final_weights_that_are_damaged_anywhere_are_asked_for_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(tmp_path)
    kept = FinalWeights(folder)
    kept.write(Weights(3, "0" * 64, 10, final=True), b"weights")
    good, chance = folder.final_weights.read_bytes(), random.Random(4)
    caplog.set_level(logging.WARNING)
    refused = 0
    for _ in range(300):
        raw = bytearray(good)
        raw[chance.randrange(len(raw))] = chance.randrange(256)
        folder.final_weights.write_bytes(raw)
        refused += kept.read() is None
    assert refused > 100
    nested = msgspec.msgpack.encode({"type": "weights"})[:-8] + b"\x91" * 100_000
    folder.final_weights.write_bytes(nested)
    assert kept.read() is None
    assert len(caplog.records) == refused + 1
