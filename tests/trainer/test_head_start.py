"""What is learnt from frames and their probe alone, and what becomes of it when ground truth comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from support import wait_until
from trainer_streams import samples, scan_start

from ptychoflow.acquisition.scan import Perspective
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import SimulationSettings
from ptychoflow.inference_edge.stitching.mosaic import Mosaic, place_patches
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.messages import PerspectiveEnd, Probe, Samples, ScanEnd, ScanStart, UnlabelledFrames, Weights
from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.streaming.weights_channel import WeightsClient
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings, NetworkConfig
from ptychoflow.trainer.models.weights_file import read_weights
from ptychoflow.trainer.online.unlabelled_frames import UnlabelledStore
from ptychoflow.trainer.pipelines.ptychography import head_start as head_start_module
from ptychoflow.trainer.pipelines.ptychography.head_start import GROUP, HeadStart
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.service import train
from ptychoflow.trainer.settings import BufferSettings, Pace

SOURCE = SimulationSettings(perspectives=1, frames_per_perspective=80, frame_shape_px=(32, 32), seed=5)
CPU = torch.device("cpu")
SETTINGS = TrainerSettings(
    model=ModelSettings(width=8, levels=2),
    batch_size=4,
    buffer=BufferSettings(capacity=50, representatives=4, candidates=2, transport="local"),
    pace=Pace.STREAM,
    finish_s=0.0,
    wait_until_served_s=30.0,
    threads=1,
    publish_every_s=1e-6,
    learning_rate=2e-3,
)


@pytest.fixture(scope="module")
def perspective() -> Perspective:
    return SimulatedScan(SOURCE).perspective(0)


def announced(perspective: Perspective) -> ScanStart:
    geometry = perspective.geometry
    return ScanStart(
        run="test",
        perspectives=1,
        frame_shape_px=geometry.frame_shape_px,
        target_shape_px=(24, 24),
        object_pixel_size_m=geometry.object_pixel_size_m,
        energy_eV=geometry.energy_eV,
        detector_distance_m=geometry.detector_distance_m,
        detector_pixel_size_m=geometry.detector_pixel_size_m,
    )


def messages(
    perspective: Perspective, *, probe: np.ndarray | None = None
) -> list[tuple[Probe | UnlabelledFrames, Arrays]]:
    counts = perspective.read(0, len(perspective)).astype(np.uint16)
    known = perspective.probe if probe is None else probe
    rows = [slice(start, start + 20) for start in range(0, len(counts), 20)]
    return [
        (Probe(0, 0.0), {"probe": known}),
        *(
            (
                UnlabelledFrames(0),
                {"position_px": perspective.positions_px[part], "diffraction": counts[part]},
            )
            for part in rows
        ),
    ]


def stored(perspective: Perspective, *, probe: np.ndarray | None = None) -> UnlabelledStore:
    store = UnlabelledStore()
    for message, arrays in messages(perspective, probe=probe):
        store.take(message, arrays, announced(perspective))
    return store


def make_head_start(store: UnlabelledStore, published: list[FrameNetwork], **settings: float) -> HeadStart:
    torch.manual_seed(0)
    config = NetworkConfig(model=SETTINGS.model, frame_shape_px=(32, 32), target_shape_px=(24, 24))
    return HeadStart(
        FrameNetwork(config),
        store,
        settings=SETTINGS.model_copy(update=settings),
        device=CPU,
        precision=Precision.FLOAT32,
        publish=published.append,
        seed=0,
    )


@dataclass
class Run:
    """A trainer in a thread of this process, what it is sent, and the weights that came of it."""

    publisher: Publisher
    client: WeightsClient
    future: Future[None]
    found: list[tuple[Weights, bytes]] = field(default_factory=list)

    def pump_until(self, condition: Callable[[], bool]) -> None:
        """Send and fetch until something is so, or the trainer has ended."""

        def came() -> bool:
            self.publisher.pump(0.02)
            self.found.extend(filter(None, [self.client.poll()]))
            return condition() or self.future.done()

        wait_until(came, timeout_s=60)

    def pump_to_end(self) -> None:
        """Send and fetch until the trainer has ended well."""
        self.pump_until(self.future.done)
        self.found.extend(filter(None, [self.client.poll()]))
        self.future.result()


@contextmanager
def training(settings: TrainerSettings, network: NetworkSettings, folder: Path) -> Iterator[Run]:
    with (
        closing(WeightsClient(network, edge="test")) as client,
        Publisher(network, spool_dir=folder, memory_bytes=1 << 26, edge=False) as publisher,
        ThreadPoolExecutor(1) as executor,
    ):
        context = RunContext("test", folder / "run", 1)
        future = executor.submit(train, settings, network=network, run=context, stop=threading.Event())
        yield Run(publisher, client, future)


def correlation_with_truth(network: FrameNetwork, perspective: Perspective) -> float:
    """Return that of the stitched phase, less a plane that frames cannot tell, with the true one."""
    counts = perspective.read(0, len(perspective)).astype(np.float32)
    with torch.no_grad():
        phase = network.eval()(torch.from_numpy(counts)).phase.numpy()
    mosaic = Mosaic()
    mosaic.stitch(place_patches(None, phase, perspective.positions_px))
    image = mosaic.image()
    truth = perspective.ground_truth
    assert truth is not None
    origin = np.round(np.array(image.origin_px) - truth.origin_px).astype(int)
    inner = image.coverage > 3
    rows, columns = np.nonzero(inner)
    true_phase = np.angle(truth.values)[rows + origin[0], columns + origin[1]]
    return float(np.corrcoef(image.phase[inner], true_phase)[0, 1])


def test_an_image_comes_of_frames_and_their_probe_alone(perspective: Perspective) -> None:
    published: list[FrameNetwork] = []
    head_start = make_head_start(stored(perspective), published)
    for _ in range(200):
        assert head_start.go_on()
    network = head_start.end()
    assert network is not None
    assert published
    untrained = make_head_start(UnlabelledStore(), [])._network
    before, after = (correlation_with_truth(one, perspective) for one in (untrained, network))
    assert abs(before) < 0.3
    assert after > 0.6
    assert not head_start.go_on(), "the frames are let go of"


def test_with_another_probe_it_is_given_up_and_training_starts_anew(
    perspective: Perspective, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_start_module, "GIVEN_UP_AFTER_STEPS", 60)
    random = np.random.default_rng(0)
    noise = (random.normal(size=(1, 32, 32)) + 1j * random.normal(size=(1, 32, 32))).astype(np.complex64)
    published: list[FrameNetwork] = []
    head_start = make_head_start(stored(perspective, probe=noise), published)
    steps = 0
    while head_start.go_on():
        steps += 1
    assert steps == 60
    assert head_start.end() is None
    assert not published


def test_it_goes_on_for_its_time_and_begins_with_a_group_of_frames(perspective: Perspective) -> None:
    assert not make_head_start(UnlabelledStore(), []).go_on()
    store, (probe, first, *_) = UnlabelledStore(), messages(perspective)
    store.take(*probe, announced(perspective))
    store.take(first[0], {name: array[: GROUP - 1] for name, array in first[1].items()}, announced(perspective))
    head_start = make_head_start(store, [], head_start_s=0.5)
    assert not head_start.go_on()
    store.take(first[0], {name: array[GROUP - 1 :] for name, array in first[1].items()}, announced(perspective))
    began_s = time.monotonic()
    assert head_start.go_on()
    while head_start.go_on():
        assert time.monotonic() < began_s + 20.0
    assert time.monotonic() >= began_s + 0.5
    assert not head_start.go_on()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"diffraction": np.ones((20, 16, 32), np.uint16)}, "diffraction has shape"),
        ({"position_px": np.zeros((20, 3))}, "position_px has shape"),
        ({"position_px": np.zeros((20, 2), np.float32)}, "positions of float32"),
        ({"diffraction": np.ones((20, 32, 32), np.complex64)}, "frames of complex64"),
        ({"diffraction": None}, "no array"),
        ({"position_px": np.zeros(())}, "position_px has shape"),
    ],
)
def test_what_cannot_be_used_is_left_out_and_said(
    perspective: Perspective, change: Arrays, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, (probe, first, *_) = UnlabelledStore(), messages(perspective)
    store.take(*first, announced(perspective))
    assert "without their probe" in caplog.text
    store.take(*probe, announced(perspective))
    arrays = {name: array for name, array in (first[1] | change).items() if array is not None}
    store.take(first[0], arrays, announced(perspective))
    assert said in caplog.text
    assert store.fullest() is None


def test_frames_that_are_not_finite_are_left_out_and_memory_is_bounded(
    perspective: Perspective, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, (probe, first, *_) = UnlabelledStore(), messages(perspective)
    store.take(*probe, announced(perspective))
    counts = first[1]["diffraction"].astype(np.float32)
    positions = first[1]["position_px"].copy()
    counts[3, 2, 2], positions[5, 1] = np.nan, np.inf
    store.take(first[0], {"position_px": positions, "diffraction": counts}, announced(perspective))
    kept = store.fullest()
    assert kept is not None
    np.testing.assert_array_equal(kept.position_px, np.delete(positions, [3, 5], axis=0))
    np.testing.assert_array_equal(np.concatenate(kept.parts), np.delete(counts, [3, 5], axis=0))
    room = kept.illumination.probe.nbytes + 18 * counts[0].nbytes + first[1]["diffraction"].nbytes
    monkeypatch.setattr("ptychoflow.trainer.online.unlabelled_frames.KEPT_BYTES", room)
    store.take(*first, announced(perspective))
    assert "MiB" not in caplog.text
    store.take(*first, announced(perspective))
    assert "frames and probes of more than" in caplog.text
    again = store.fullest()
    assert again is not None
    assert len(again.position_px) == 18 + 20
    # an acquisition that was started again sends all of it again, and finds room
    store.take(*probe, announced(perspective))
    store.take(*first, announced(perspective))
    anew = store.fullest()
    assert anew is not None
    assert len(anew.position_px) == 20


def test_it_learns_from_the_perspective_with_most_frames(perspective: Perspective) -> None:
    store, (probe, first, *_) = UnlabelledStore(), messages(perspective)
    for message, arrays in ((Probe(1, 0.0), probe[1]), (UnlabelledFrames(1), first[1]), *messages(perspective)):
        store.take(message, arrays, announced(perspective))
    for message, arrays in ((Probe(2, 0.0), probe[1]), (UnlabelledFrames(2), first[1])):
        store.take(message, arrays, announced(perspective))
    fullest = store.fullest()
    assert fullest is not None
    assert len(fullest.position_px) == len(perspective)


def test_frames_that_do_not_overlap_are_not_explained_together(perspective: Perspective) -> None:
    store, (probe, *batches) = UnlabelledStore(), messages(perspective)
    store.take(*probe, announced(perspective))
    for message, arrays in batches:
        # as far apart as positions in another unit would be
        store.take(message, arrays | {"position_px": arrays["position_px"] * 1e4}, announced(perspective))
    head_start = make_head_start(store, [])
    assert all(head_start.go_on() for _ in range(3))


def test_it_takes_one_processor_and_leaves_the_others_to_phase_retrieval(perspective: Perspective) -> None:
    head_start, threads = make_head_start(stored(perspective), []), []
    network = head_start._network
    network.register_forward_pre_hook(lambda *_: threads.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert all(head_start.go_on() for _ in range(3))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == [1] * 3


@pytest.mark.parametrize("brightness", [1e-20, 1e20])
def test_the_brightness_of_the_probe_does_not_matter(perspective: Perspective, brightness: float) -> None:
    assert perspective.probe is not None
    heads = [
        make_head_start(stored(perspective, probe=(perspective.probe * scale).astype(np.complex64)), [])
        for scale in (1.0, brightness)
    ]
    for head_start in heads:
        for _ in range(5):
            assert head_start.go_on()
    unexplained = [list(head_start._unexplained) for head_start in heads]
    np.testing.assert_allclose(unexplained[0], unexplained[1], rtol=1e-3)


def test_weights_that_were_of_use_stay_so_though_it_gets_worse(perspective: Perspective) -> None:
    published: list[FrameNetwork] = []
    head_start = make_head_start(stored(perspective), published, publish_every_s=1e6)
    while not published:
        assert head_start.go_on()
    head_start._unexplained.extend([1.0] * 99)
    learnt = head_start.end()
    assert learnt is not None
    for name, tensor in learnt.state_dict().items():
        torch.testing.assert_close(tensor, published[0].state_dict()[name], rtol=0, atol=0)


def test_an_edge_gets_weights_before_the_first_sample_and_the_last_of_them_if_none_comes(
    network: NetworkSettings, tmp_path: Path, perspective: Perspective
) -> None:
    with training(SETTINGS, network, tmp_path) as run:
        run.publisher.post_to_ranks(announced(perspective))
        for message, arrays in messages(perspective):
            run.publisher.post_to_first_rank(message, arrays)
        run.pump_until(lambda: len(run.found) >= 2)
        assert all((weights.step, weights.final) == (0, False) for weights, _ in run.found)
        run.publisher.post_to_ranks(PerspectiveEnd(0, 0.0, 80))
        run.publisher.post_to_ranks(ScanEnd(80))
        run.pump_to_end()
    weights, data = run.found[-1]
    assert weights.final
    kept = [read_weights(path.read_bytes()) for path in sorted((tmp_path / "run" / "weights").glob("v*"))]
    final, before = read_weights(data).network.state_dict(), kept[-2].network.state_dict()
    for name, tensor in final.items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_training_goes_on_from_what_was_learnt(
    network: NetworkSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    marked: list[FrameNetwork] = []

    class Marked(HeadStart):
        """Learns nothing, and hands over a network that can be told from others."""

        def go_on(self) -> bool:
            return False

        def end(self) -> FrameNetwork:
            with torch.no_grad():
                for parameter in self._network.parameters():
                    parameter.fill_(0.25)
            marked.append(self._network)
            return self._network

    monkeypatch.setattr("ptychoflow.trainer.pipelines.ptychography.recipe.HeadStart", Marked)
    settings = SETTINGS.model_copy(update={"learning_rate": 1e-12, "averaging": 0.0})
    with training(settings, network, tmp_path) as run:
        run.publisher.post_to_ranks(scan_start())
        run.publisher.post_samples(Samples(perspective=0), samples(range(40)))
        run.publisher.post_to_ranks(PerspectiveEnd(0, 0.0, 40))
        run.publisher.post_to_ranks(ScanEnd(40))
        run.pump_to_end()
    assert len(marked) == 1
    newest = sorted((tmp_path / "run" / "weights").glob("v*"))[-1]
    loaded = read_weights(newest.read_bytes())
    assert loaded.manifest.step > 0
    for name, parameter in loaded.network.named_parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, 0.25), rtol=1e-6, atol=0, msg=name)
