"""Checkpoints as files: what comes back, which one counts, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
import torch
from checkpoint_files import save
from safetensors import safe_open
from support import wait_until
from trainer_streams import FRAME, TARGET, samples

from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.checkpoints.checkpoint import (
    MARKER,
    Marker,
    at,
    begin,
    checkpoint_name,
    newest,
    remove_unfinished,
    set_damaged_aside,
    shard_name,
)
from ptychoflow.trainer.checkpoints.state_file import BadState, read_state, write_state
from ptychoflow.trainer.checkpoints.writer import CheckpointWriter, ValidationFile
from ptychoflow.trainer.interface.agreement import Agreed
from ptychoflow.trainer.interface.batch import Batch, join
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings, NetworkConfig
from ptychoflow.trainer.models.seal import check_seal
from ptychoflow.trainer.pipelines.ptychography.pipeline import Ptychography
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.settings import OptimizerKind, OptimizerSettings
from ptychoflow.trainer.strategies.incremental import Incremental
from ptychoflow.trainer.training.learner import Learner
from ptychoflow.trainer.training.schedule import ScanSchedule

CPU = torch.device("cpu")
PIPELINE = Ptychography(FRAME, TARGET)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = {
        "counts": {"trained": 3, "reasons": [["not finite", 2]], "none": None, "empty": {}},
        "frames": torch.arange(6).reshape(2, 3).to(torch.uint16),
        "half": torch.tensor([0.5, float("nan")], dtype=torch.float16),
        "flipped": torch.arange(6.0).reshape(2, 3).T,
        "scalar": torch.tensor(7),
    }
    write_state(state, tmp_path / "state")
    found = read_state(tmp_path / "state")
    assert sorted(found) == sorted(state)
    assert {key: found["counts"][key] for key in found["counts"]} == state["counts"]
    for name in ("frames", "half", "flipped", "scalar"):
        torch.testing.assert_close(found[name], state[name], equal_nan=True)
        assert found[name].dtype == state[name].dtype
    with pytest.raises(KeyError):
        found["counts"]["missing"]
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_file_that_is_no_state_says_so(tmp_path: Path) -> None:
    write_state({"weights": torch.zeros(100)}, tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-10])
    (tmp_path / "foreign").write_bytes(b"something else altogether")
    for name in ("cut", "foreign"):
        with pytest.raises(BadState, match=name):
            read_state(tmp_path / name)


def save_step(folder: Path, step: int, keep: int = 3) -> Path:
    return save(folder, step=step, common={"step": step}, shard={"rank": 0}, keep=keep)


def test_the_newest_complete_checkpoint_counts_and_old_ones_go(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    for step in (5, 90, 100, 1000):
        save_step(tmp_path, step)
    found = newest(tmp_path)
    assert found is not None
    assert (found.step, found.common()["step"], [shard["rank"] for shard in found.shards()]) == (1000, 1000, [0])
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint_name(step) for step in (90, 100, 1000)]


def test_a_checkpoint_that_was_being_written_is_left_out_and_cleared_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_step(tmp_path, 10)
    (save_step(tmp_path, 20) / MARKER).unlink()
    damaged = save_step(tmp_path, 30) / shard_name(0)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    write_state({}, begin(tmp_path, 40) / shard_name(1))
    found = newest(tmp_path)
    assert found is not None
    assert found.step == 10
    assert "step-00000030 is not complete and is not used: rank-0.safetensors is missing or cut short" in caplog.text
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000030"]
    with pytest.raises(UserError, match="all ranks must see the run folder"):
        at(tmp_path, 30)


@pytest.mark.parametrize("content", ['{"format": 2, "ranks": 1, "file_bytes": {}}', '{"steps": 3}', "not JSON"])
def test_a_checkpoint_of_another_version_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = save_step(tmp_path, 10)
    (path / MARKER).write_text(content)
    with pytest.raises(
        UserError, match=r"was not written by this version of ptychoflow .* remove this folder"
    ) as error:
        newest(tmp_path)
    assert "\n" not in str(error.value)
    assert path.exists()


def test_a_damaged_file_of_a_complete_checkpoint_is_told(tmp_path: Path) -> None:
    path = save_step(tmp_path, 10)
    content = bytearray((path / "common.safetensors").read_bytes())
    content[8:12] = b"!!!!"
    (path / "common.safetensors").write_bytes(content)
    found = newest(tmp_path)
    assert found is not None
    with pytest.raises(UserError, match=r"is damaged.*go back to the one before"):
        found.common()


def flip_a_bit(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["common.safetensors", "rank-0.safetensors", "../validation/v.safetensors", MARKER])
def test_a_checkpoint_of_which_one_bit_has_changed_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Wherever the bit lies, of tensors, values, names or the digest itself."""
    (tmp_path / "validation").mkdir()
    state = {"values": {"rate": 0.5}, "weights": torch.arange(8.0)}
    save(tmp_path, step=10, common=state, shard=state, keep=3)
    write_state(state, tmp_path / "validation" / "v.safetensors")
    path = save(tmp_path, step=20, common=state, shard=state, keep=3)
    whole = (path / name).read_bytes()
    # a bit of the format's number makes it the marker of another version, which is for people to decide about
    number = whole.find(b'"format": 1') + len('"format": ') if name == MARKER else -1
    for place in [place for place in range(0, len(whole), 7) if place != number]:
        (path / name).write_bytes(whole)
        flip_a_bit(path / name, place)
        caplog.clear()
        set_damaged_aside(tmp_path)
        aside = tmp_path / "step-00000020.damaged"
        if aside.exists():
            found = newest(tmp_path)
            assert found is not None
            assert found.step == 10
            assert "step-00000020 is damaged and passed over, it is step-00000020.damaged now: " in caplog.text
            aside.rename(path)
        else:  # a space, or a name that is unknown in a marker that says the same
            assert name == MARKER
            assert Marker.model_validate_json((path / name).read_bytes()) == Marker.model_validate_json(whole)
    (path / name).write_bytes(whole)
    set_damaged_aside(tmp_path)
    remove_unfinished(tmp_path)
    assert newest(tmp_path) is not None
    assert path.exists()


def test_a_damaged_checkpoint_before_which_there_is_none_is_told(tmp_path: Path) -> None:
    path = save_step(tmp_path, 10)
    flip_a_bit(path / "common.safetensors", -1)
    with pytest.raises(UserError, match=r"step-00000010 is damaged, and there is none before: .*SHA-256 differs"):
        set_damaged_aside(tmp_path)
    assert path.exists()


def test_files_of_checkpoints_can_be_read_by_anybody_and_cost_no_copy(tmp_path: Path) -> None:
    write_state({"weights": torch.ones(3), "seal": "0" * 64}, tmp_path / "state")
    with safe_open(tmp_path / "state", framework="pt") as file:
        assert file.get_tensor("weights").tolist() == [1.0] * 3
    check_seal(tmp_path / "state")
    assert read_state(tmp_path / "state")["seal"] == "0" * 64


@contextmanager
def writers(folder: Path, failures: list[str]) -> Iterator[list[CheckpointWriter]]:
    both = [CheckpointWriter(folder, rank=rank, world_size=2, keep=2, on_failure=failures.append) for rank in range(2)]
    try:
        yield both
    finally:
        for writer in both:
            writer.close()


def test_a_checkpoint_is_complete_for_every_rank_only_when_all_have_written(tmp_path: Path) -> None:
    failures: list[str] = []
    done = [Event(), Event()]
    with writers(tmp_path, failures) as (first, second):
        first.write(7, shard={"rank": 0}, common={"a": 1}, when_complete=done[0].set)
        wait_until((tmp_path / "step-00000007.part" / "common.safetensors").exists)
        assert newest(tmp_path) is None
        assert not first.idle
        validation = ValidationFile("v.safetensors", {"0.0": {"phase": torch.ones(2)}})
        second.write(7, shard={"rank": 1}, common=None, validation=validation, when_complete=done[1].set)
        first.wait(20.0)
        second.wait(20.0)
    assert all(event.is_set() for event in done)
    assert failures == []
    found = newest(tmp_path)
    assert found is not None
    assert [shard["rank"] for shard in found.shards()] == [0, 1]
    assert found.validation(["v.safetensors"])[0]["0.0"]["phase"].tolist() == [1.0, 1.0]
    assert json.loads((found.path / MARKER).read_text())["ranks"] == 2


def test_when_one_rank_cannot_write_all_learn_it_and_the_next_checkpoint_is_written(tmp_path: Path) -> None:
    failures: list[str] = []
    done: list[int] = []
    save_step(tmp_path, 3)
    with writers(tmp_path, failures) as (first, second):
        first.write(7, shard={}, common={}, when_complete=lambda: done.append(0))
        wait_until((tmp_path / "step-00000007.part" / "common.safetensors").exists)
        (tmp_path / "validation").touch()  # where a folder is needed
        broken = ValidationFile("v.safetensors", {"phase": torch.ones(2)})
        second.write(7, shard={}, common=None, validation=broken, when_complete=lambda: done.append(1))
        first.wait(20.0)
        second.wait(20.0)
        assert [text.startswith("no checkpoint after step 7: ") for text in failures] == [True, True]
        assert done == []
        found = newest(tmp_path)
        assert found is not None
        assert found.step == 3
        first.write(8, shard={}, common={}, when_complete=lambda: done.append(0))
        second.write(8, shard={}, common=None, when_complete=lambda: done.append(1))
        first.wait(20.0)
        second.wait(20.0)
    assert sorted(done) == [0, 1]


@pytest.mark.parametrize("broken", [0, 1])
def test_nobody_waits_for_a_checkpoint_that_another_rank_had_given_up_before(tmp_path: Path, broken: int) -> None:
    """The ranks stand still while one of them waits for its last checkpoint."""
    failures: list[str] = []
    (tmp_path / "validation").touch()  # where a folder is needed
    file = ValidationFile("v.safetensors", {"phase": torch.ones(2)})
    common: list[dict[str, int] | None] = [{}, None]
    with writers(tmp_path, failures) as both:
        for rank in (broken, 1 - broken):
            both[rank].write(
                7,
                shard={},
                common=common[rank],
                validation=file if rank == broken else None,
                when_complete=lambda: failures.append("complete"),
            )
            if rank == broken:
                both[rank].wait(20.0)
        wait_until((tmp_path / "step-00000007.part").exists)
        both[broken].write(8, shard={}, common=common[broken], when_complete=lambda: None)
        both[1 - broken].wait(20.0)
        assert [text.startswith("no checkpoint after step 7: ") for text in failures] == [True, True]
        both[1 - broken].write(8, shard={}, common=common[1 - broken], when_complete=lambda: None)
        for writer in both:
            writer.wait(20.0)
    found = newest(tmp_path)
    assert found is not None
    assert found.step == 8


def learner(optimizer: OptimizerSettings, seed: int) -> Learner[FrameNetwork]:
    torch.manual_seed(seed)
    network = FrameNetwork(
        NetworkConfig(model=ModelSettings(width=4, levels=2), frame_shape_px=FRAME, target_shape_px=TARGET)
    )
    settings = TrainerSettings(averaging=0.5, learning_rate=1e-3, optimizer=optimizer)
    schedule = ScanSchedule(settings.schedule, settings.learning_rate)
    return Learner(network, PIPELINE, settings, schedule=schedule, device=CPU, precision=Precision.FLOAT32)


def batch(step: int) -> Batch:
    arrays = samples(range(4 * step, 4 * step + 4))
    minibatch = {name: torch.from_numpy(arrays[name]) for name in ("diffraction", "amplitude", "phase")}
    return join(minibatch, None, pipeline=PIPELINE, device=CPU)


def train(trained: Learner[FrameNetwork], steps: range) -> None:
    agreed = Agreed(4, 4, section_ended=False, stream_ended=False, stop=False, publish=False, finish=0.0)
    for step in steps:
        trained.train(batch(step), Incremental(PIPELINE, device=CPU), agreed)


@pytest.mark.parametrize("kind", list(OptimizerKind))
def test_training_that_goes_on_from_a_checkpoint_equals_training_that_never_stopped(
    tmp_path: Path, kind: OptimizerKind
) -> None:
    optimizer = OptimizerSettings(kind=kind)
    never_stopped, killed, resumed = learner(optimizer, 0), learner(optimizer, 0), learner(optimizer, 1)
    train(never_stopped, range(8))
    train(killed, range(5))
    with ThreadPoolExecutor(1) as background:
        written = background.submit(
            save, tmp_path, step=killed.steps, common=killed.state(), shard=killed.rank_state(), keep=1
        )
        train(killed, range(5, 8))  # the copies do not change with the network
        written.result()
    found = newest(tmp_path)
    assert found is not None
    resumed.restore(found.common())
    resumed.restore_rank(found.shards()[0])
    assert resumed.steps == 5
    train(resumed, range(5, 8))
    assert (resumed.steps, resumed.rate) == (never_stopped.steps, never_stopped.rate)
    for name, tensor in never_stopped.averaged.network.state_dict().items():
        torch.testing.assert_close(resumed.averaged.network.state_dict()[name], tensor, rtol=0, atol=0)
