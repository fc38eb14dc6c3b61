"""The distributed rehearsal buffer as a training loop sees it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import torch

from ptychoflow.buffer.background import Background, DrawTiming
from ptychoflow.buffer.candidate_writer import CandidateWriter, Offer, no_candidates
from ptychoflow.buffer.capacity import class_quotas
from ptychoflow.buffer.checkpoint import check_own, check_shards, restore_own, restore_shards, save_shard
from ptychoflow.buffer.cuda import numbered, use
from ptychoflow.buffer.draws import ScoreDraw, UniformDraw
from ptychoflow.buffer.generators import make_generators
from ptychoflow.buffer.item_update import ItemUpdate
from ptychoflow.buffer.local_store import LocalStore
from ptychoflow.buffer.membership import membership
from ptychoflow.buffer.memory import byte_rows
from ptychoflow.buffer.names import DrawName, PolicyName, TransportName
from ptychoflow.buffer.offer_checks import OfferCheck, check_floats
from ptychoflow.buffer.options import Options, total_capacity
from ptychoflow.buffer.outputs import Outputs, Representatives
from ptychoflow.buffer.policies import Policy, make_policy
from ptychoflow.buffer.schema import Schema
from ptychoflow.buffer.statistics import BufferStats, StepClock, StepTiming
from ptychoflow.buffer.transport.opening import check_transport, open_transport
from ptychoflow.buffer.work import Work

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class RehearsalBuffer:
    """Stores samples of a stream on all ranks of a group and serves draws of all that is stored.

    One step of training is `take`, then `offer`; insertion and the next draw run in the background meanwhile. The
    methods may be called from any thread, one call at a time takes effect. Making one is collective over `group`: it
    allocates the store, connects the ranks and starts the background thread.

    Draws are without replacement. With `draw="uniform"` every set of items over all ranks is equally likely. With
    `draw="score"` items are drawn one after the other, over all ranks, each with a probability proportional to
    `score ** score_exponent` among those not drawn yet (successive sampling); items whose score is not positive are
    never drawn, so a draw may have fewer items. Either is exact while nothing is inserted or updated anywhere. While
    the stores change, a rank's share of a draw follows the number or the weight of its items that was last heard of,
    and the items of its share are drawn from those that it has when it is asked.

    Args:
        schema: What an item is made of.
        representatives: Items per draw (the thesis's r).
        candidates: Samples of each minibatch, chosen at random, that the policy decides on (c).
        capacity: Items over all ranks of `group`.
        capacity_bytes: Bytes that all ranks' stores may occupy; give either this or `capacity`.
        classes: Labels are 0 to classes - 1 and share the capacity equally.
        policy: What is kept, by name or as an object of one's own.
        draw: "uniform", or "score" for draws by score, which need `scores` with every `offer`.
        score_exponent: How strongly a draw by score follows the scores, above 0.
        transport: "auto" takes UCX if it can be imported, else TCP; "local" keeps every rank to its own items.
        group: None is the default process group, or one process alone where there is none.
        seed: Of all random numbers; each rank's are its own.
        device: Where `take` puts the items.
        timeout_s: How long a rank may leave a request unanswered before the others go on without it.

    Raises:
        ValueError: settings cannot work, or differ between the ranks.
        TimeoutError: a rank does not appear.
    """

    def __init__(  # noqa: PLR0913  keyword-only settings, each with one meaning
        self,
        schema: Schema,
        *,
        representatives: int,
        candidates: int,
        capacity: int | None = None,
        capacity_bytes: int | None = None,
        classes: int = 1,
        policy: PolicyName | Policy = "random",
        draw: DrawName = "uniform",
        score_exponent: float = 1.0,
        transport: TransportName = "auto",
        group: ProcessGroup | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        timeout_s: float = 30.0,
    ) -> None:
        member = membership(group)
        self._schema = schema
        self._member = member
        self._device = numbered(torch.device(device))
        self._policy = make_policy(policy)
        check_transport(transport)
        self._options = Options(
            capacity=total_capacity(
                capacity,
                capacity_bytes,
                item_bytes=schema.nbytes,
                candidates=candidates,
                world_size=member.world_size,
            ),
            representatives=representatives,
            candidates=candidates,
            classes=classes,
            seed=seed,
            timeout_s=timeout_s,
            world_size=member.world_size,
            draw=draw,
            score_exponent=score_exponent,
            quotas=not self._policy.open_classes,
        )
        self._check = OfferCheck(schema, classes=classes, policy=self._policy, draw=draw)
        self._generators = make_generators(seed, member.rank)
        self._store = LocalStore(
            schema,
            quotas=class_quotas(
                self._options.capacity, classes=classes, rank=member.rank, world_size=member.world_size
            ),
            spare_rows=self._options.spare_rows,
            policy=self._policy,
            rank=member.rank,
            pinned=self._device.type == "cuda",
            score_exponent=score_exponent if draw == "score" else None,
        )
        self._writer = CandidateWriter(self._store.rows, self._store.free, self._device)
        self._transport = open_transport(
            transport, member, self._store, options=self._options, serve_rng=self._generators.serve
        )
        self._outputs = Outputs(schema, representatives, device=self._device, open_window=self._transport.open_window)
        make_draw = UniformDraw if draw == "uniform" else ScoreDraw
        self._clock = StepClock()
        self._background = Background(
            self._store,
            self._transport,
            self._outputs,
            make_draw(self._store, self._transport, self._outputs, items=representatives, rng=self._generators.draw),
            generators=self._generators,
            clock=self._clock,
        )
        self._background.submit(partial(use, self._device))
        self._calls = threading.RLock()
        self._offers = 0
        self._offered_samples = 0
        self._pending: Work[DrawTiming] | None = None
        self._pending_offer_s = 0.0
        self._may_take = True
        self._closed = False

    @property
    def schema(self) -> Schema:
        """What an item is made of."""
        return self._schema

    @property
    def device(self) -> torch.device:
        """Where `take` puts the items."""
        return self._device

    @property
    def needs_scores(self) -> bool:
        """Whether `offer` must be given scores."""
        return self._policy.needs_scores or self._options.draw == "score"

    @property
    def needs_features(self) -> bool:
        """Whether `offer` must be given features."""
        return self._policy.needs_features

    def take(self) -> Representatives:
        """Return the items of the draw that the last `offer` began; zero items before any offer.

        Waits only if the background is behind. What is returned stays valid until the next `take`.

        Raises:
            RuntimeError: nothing was offered since the last `take`, or the buffer is closed or has failed.
        """
        with self._calls:
            self._check_open()
            if not self._may_take:
                raise RuntimeError("take() was called twice without an offer() between; offer(None) begins a draw.")
            self._may_take = False
            pending, self._pending = self._pending, None
            if pending is None:
                return self._outputs.swap()
            started = time.perf_counter()
            had_to_wait = not pending.is_finished
            timing = pending.result()
            self._clock.record_take(
                StepTiming(
                    waited_s=time.perf_counter() - started,
                    offered_s=self._pending_offer_s,
                    populate_s=timing.populate_s,
                    augment_s=timing.augment_s,
                ),
                had_to_wait=had_to_wait,
            )
            self._check_open()
            return self._outputs.swap()

    def offer(
        self,
        minibatch: Mapping[str, torch.Tensor] | None,
        *,
        labels: torch.Tensor | None = None,
        scores: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
    ) -> None:
        """Store candidates of a minibatch and begin the next draw, both in the background.

        The caller may reuse all tensors on return. Blocks only while two earlier offers are still not inserted. A draw
        that was not taken is replaced by the new one.

        Args:
            minibatch: Every field of the schema, (samples, *shape), in the schema's dtype, on any device; None begins
                a draw only.
            labels: Integers (samples,), needed if there are several classes; labels on a GPU cost a synchronisation.
            scores: Floats (samples,), for a policy or a draw that needs them.
            features: Floats (samples, d), for a policy that needs them.

        Raises:
            ValueError: something does not fit, and nothing was stored.
            RuntimeError: the buffer is closed or has failed.
        """
        with self._calls:
            self._check_open()
            started = time.perf_counter()
            offer = (
                no_candidates() if minibatch is None else self._write_candidates(minibatch, labels, scores, features)
            )
            self._pending = self._background.submit_offer(offer)
            self._may_take = True
            self._offers += 1
            self._pending_offer_s = time.perf_counter() - started
            self._clock.record_offer(self._pending_offer_s)

    def _write_candidates(
        self,
        minibatch: Mapping[str, torch.Tensor],
        labels: torch.Tensor | None,
        scores: torch.Tensor | None,
        features: torch.Tensor | None,
    ) -> Offer:
        count = self._check.count(minibatch, labels=labels, scores=scores, features=features)
        self._offered_samples += count
        chosen = self._generators.select.permutation(count)[: self._options.candidates]
        return self._writer.write(minibatch, chosen, labels=labels, scores=scores, features=features)

    def update(
        self,
        minibatch: Mapping[str, torch.Tensor] | None,
        *,
        labels: torch.Tensor | None = None,
        scores: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
    ) -> Representatives:
        """`take`, then `offer`: the thesis's primitive, for strategies that store nothing of the forward pass.

        Args:
            minibatch: See `offer`, like the others.
            labels: See `offer`.
            scores: See `offer`.
            features: See `offer`.

        Returns:
            What `take` returns.
        """
        with self._calls:
            representatives = self.take()
            self.offer(minibatch, labels=labels, scores=scores, features=features)
            return representatives

    def update_items(self, ids: torch.Tensor, *, scores: torch.Tensor | None = None, **fields: torch.Tensor) -> int:
        """Rewrite fields or scores of stored items, on whichever rank they live.

        Waits for the background and for other ranks, at most `timeout_s`. An item that was replaced meanwhile is not
        touched. Draws and policies see the new scores from then on.

        Args:
            ids: int64 (items,), as `take` gave them.
            scores: Floats (items,).
            **fields: Fields of the schema, (items, *shape), in the schema's dtype, on any device.

        Returns:
            How many of the items were still there.

        Raises:
            ValueError: there is nothing to rewrite, or something does not fit.
        """
        self._check_open()
        if not fields and scores is None:
            raise ValueError("update_items() needs scores, or at least one field to rewrite.")
        if ids.dtype != torch.int64 or ids.ndim != 1:
            raise ValueError(f"ids must be int64 numbers (items,), not {tuple(ids.shape)} of {ids.dtype}.")
        if fields:
            names = tuple(name for name in self._schema if name in fields) or None
            if (count := self._schema.check_batch(fields, names=names)) != len(ids):
                raise ValueError(f"ids must be {count} int64 numbers, one per item rewritten, not {len(ids)}.")
        if scores is not None:
            scores = scores.detach().cpu()  # waits for a GPU as the update does, so that what it holds can be asked
            check_floats("scores", scores, (len(ids),))
        update = ItemUpdate(
            ids.cpu().numpy(),
            {name: byte_rows(fields[name].detach().cpu()) for name in self._schema if name in fields},
            None if scores is None else scores.double().numpy(),
        )
        return self._background.submit(lambda: self._background.update_items(update)).result()

    def stats(self) -> BufferStats:
        """Return what was measured so far; does not wait."""
        store, transport, clock, background = self._store, self._transport, self._clock, self._background
        return BufferStats(
            rank=self._member.rank,
            world_size=self._member.world_size,
            transport=transport.name,
            capacity=self._options.capacity,
            capacity_rank=store.index.capacity,
            capacity_per_class=tuple(store.index.quotas.tolist()),
            size=store.index.size,
            size_per_class=store.index.sizes(),
            size_per_rank={self._member.rank: store.index.size, **transport.sizes},
            offered=self._offers,
            offered_samples=self._offered_samples,
            candidates=store.counters.candidates,
            accepted=store.counters.accepted,
            replaced=store.counters.replaced,
            updated=store.counters.updated,
            draws=background.draws,
            drawn=background.drawn,
            taken=clock.taken,
            waits=clock.waits,
            served=transport.counters.items_served,
            served_in_place=transport.counters.items_placed,
            waited_s=clock.waited_s,
            offered_s=clock.offered_s,
            populate_s=clock.populate_s,
            augment_s=clock.augment_s,
            background_cpu_s=background.cpu_s,
            bytes_copied=store.counters.bytes_copied,
            bytes_received=transport.counters.bytes_received,
            bytes_sent=transport.counters.bytes_sent,
            lost_ranks=dict(transport.lost),
            left_ranks=tuple(transport.left),
            last_step=clock.last,
        )

    def state_dict(self) -> dict[str, object]:
        """Return this rank's state: items, ids, counters and random numbers, as tensors, numbers and text only.

        Waits for the background. A draw that was begun is not part of it: after restoring, `offer(None)` begins one.

        Returns:
            What `load_state_dict` takes on this rank, and `load_shards` beside those of the other ranks on any.
        """
        with self._calls:
            self._check_open()
            return self._background.submit(
                lambda: save_shard(self._store, self._generators, options=self._options, step=self._offers)
            ).result()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what this rank saved in a run on as many ranks, so that it goes on as if never interrupted.

        Call it on every rank, each with its own state, before the first `offer`. It waits until all ranks have, at most
        `timeout_s`, so that the next draw is from all that was stored. The capacity may be another one if every rank
        still has room for its own items; `load_shards` deals them anew where one has not.

        Args:
            state: what `state_dict` returned on this rank.

        Raises:
            ValueError: the state is another rank's, was saved on another number of ranks (see `load_shards`), does not
                fit this buffer's schema, policy, classes or capacity, or something was offered.
        """
        self._load(
            "load_state_dict",
            lambda: check_own(state, self._store, options=self._options),
            lambda: restore_own(state, self._store, self._generators, options=self._options),
        )

    def load_shards(self, shards: Sequence[Mapping[str, Any]]) -> None:
        """Take over this rank's part of what all ranks of a run saved, be they as many ranks or not.

        Items keep their ids. On as many ranks and with the same capacity this does what `load_state_dict` does; else
        every rank gets an equal share of every class, and the random numbers begin anew. Call it on every rank before
        the first `offer`; it waits for the others as `load_state_dict` does.

        Args:
            shards: what `state_dict` returned on all ranks, in their order, the same on every rank; may be read lazily.

        Raises:
            ValueError: the shards are not a whole set, do not fit this buffer's schema, policy, classes or capacity, or
                something was offered.
        """
        self._load(
            "load_shards",
            lambda: check_shards(shards, self._store, options=self._options),
            lambda: restore_shards(shards, self._store, self._generators, options=self._options),
        )

    def _load(self, name: str, check: Callable[[], None], restore: Callable[[], int]) -> None:
        with self._calls:
            self._check_open()
            if self._offers:
                raise ValueError(f"{name}() must come before the first offer().")
            check()
            self._offers = self._background.submit(restore).result()
            if self._store.index.features is not None:
                self._check.expect_features(self._store.index.features.shape[1])
            self._background.submit(self._transport.announce_restored).result()

    def close(self) -> None:
        """End the background thread and leave the group; the other ranks go on without this rank's items."""
        if not self._closed:
            self._closed = True
            self._background.close()
            self._writer.close()
            with self._calls:
                self._outputs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("The buffer is closed.")
