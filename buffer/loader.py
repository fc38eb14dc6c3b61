"""Rehearsal for training loops that know of nothing but a loader of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from ptychoflow.buffer.outputs import Representatives
from ptychoflow.buffer.rehearsal import RehearsalBuffer

Fields = Callable[[Any], Mapping[str, torch.Tensor]] | Sequence[str]
"""How a batch of the loader becomes named tensors: a function, or the names of a tuple's elements in their order."""


@dataclass(frozen=True)
class _Samples:
    """What is known of a batch's samples beside their tensors; see `RehearsalBatch`."""

    new: int
    rehearsed: torch.Tensor
    labels: torch.Tensor | None
    ids: torch.Tensor
    loaded: Any


class RehearsalBatch(dict[str, torch.Tensor]):
    """A batch of the loader followed by representatives: the buffer's fields by name, each (samples, *shape).

    All tensors lie on the buffer's device and belong to the caller. Fields that the loader does not bring are zeros for
    the new samples. Frameworks move it by `to`, or make another of its items alone; what such a copy does not know is
    still known to `RehearsalLoader.batch`, and asking the copy for it raises a RuntimeError.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], samples: _Samples | None = None) -> None:
        super().__init__(tensors)
        self._known = samples

    @property
    def new(self) -> int:
        """Number of new samples; they are the first."""
        return self._samples.new

    @property
    def rehearsed(self) -> torch.Tensor:
        """Whether each sample comes from the buffer, bool (samples,)."""
        return self._samples.rehearsed

    @property
    def labels(self) -> torch.Tensor | None:
        """Class of each sample, int64 (samples,); None if the loader was given no `labels`."""
        return self._samples.labels

    @property
    def ids(self) -> torch.Tensor:
        """Id of each sample in the buffer, int64 (samples,), -1 for new ones; for `RehearsalBuffer.update_items`."""
        return self._samples.ids

    @property
    def loaded(self) -> Any:
        """The batch as the loader gave it, with whatever it holds beside the buffer's fields."""
        return self._samples.loaded

    @property
    def _samples(self) -> _Samples:
        if self._known is None:
            raise RuntimeError("This batch was made anew of another's tensors; what else is known is in loader.batch.")
        return self._known

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return a copy whose tensors are on `device`; `loaded` stays where it is."""

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        known = self._known and replace(
            self._known,
            rehearsed=moved(self.rehearsed),
            labels=None if self.labels is None else moved(self.labels),
            ids=moved(self.ids),
        )
        return type(self)({name: moved(tensor) for name, tensor in self.items()}, known)


@dataclass(frozen=True)
class _NewSamples:
    """What the loader brought for the buffer, and which fields are still to come."""

    fields: dict[str, torch.Tensor]
    labels: torch.Tensor | None
    count: int
    missing: tuple[str, ...]


class RehearsalLoader:
    """Wraps a loader and yields each of its batches joined with representatives drawn from a buffer.

    The loader is asked for everything else, such as its `dataset` or `sampler`. Epochs, samplers and an uneven last
    batch are its own business. With several ranks each wraps its own loader, and they need not be equally long. Where a
    framework wraps loaders of its own accord, wrap what it has made: where outputs are stored, no batch may be asked
    for before those of the last are there.

    If the loader brings every field of the buffer's schema, its samples are offered before the batch is yielded, so
    that insertion and the next draw hide behind the training step (experience replay). Fields that it does not bring
    are outputs of the forward pass: call `store` with them after it (dark experience replay).

        for batch in RehearsalLoader(loader, buffer, fields=("image", "label"), labels="label"):
            output = network(batch["image"])
            loss = cross_entropy(output, batch.labels)

    Args:
        loader: Yields batches: a `DataLoader`, or any iterable. Iterated anew in every epoch.
        buffer: Where new samples are kept and from which representatives come. Several loaders may use it one after
            the other; closing it is the caller's business.
        fields: How a batch becomes a mapping of names to tensors (samples, *shape), in which at least one is a field of
            the schema: a function of the batch, or the names of a tuple's elements. None if batches are mappings.
        labels: The name under which that mapping has the class of every sample, integers (samples,); it need not be a
            field of the schema.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        buffer: RehearsalBuffer,
        *,
        fields: Fields | None = None,
        labels: str | None = None,
    ) -> None:
        self.loader = loader
        self.buffer = buffer
        self._fields = fields
        self._labels = labels
        self._unstored: _NewSamples | None = None
        self._batch: RehearsalBatch | None = None

    def __iter__(self) -> Iterator[RehearsalBatch]:
        """Yield the batches of one epoch.

        Raises:
            RuntimeError: outputs of the batch before were not stored.
            ValueError: a batch does not fit the buffer's schema.
        """
        for loaded in self.loader:
            if self._unstored is not None:
                wanted = ", ".join(f"{name}=..." for name in self._unstored.missing)
                raise RuntimeError(
                    f"The last batch is not in the buffer: call store({wanted}) after every forward pass, since the "
                    "loader does not bring this."
                )
            new = self._read(loaded)
            representatives = self.buffer.take()
            if new.missing:
                self._unstored = new
            else:
                self.buffer.offer(new.fields, labels=new.labels)
            self._batch = self._join(new, representatives, loaded)
            yield self._batch

    @property
    def batch(self) -> RehearsalBatch | None:
        """The batch yielded last, for steps that are handed no more than its tensors; None before the first."""
        return self._batch

    def __len__(self) -> int:
        """Return the number of batches in an epoch; TypeError if the loader does not know."""
        return len(self.loader)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        """Return the loader's attribute."""
        if name == "loader":  # not there yet while a copy is being made
            raise AttributeError(name)
        return getattr(self.loader, name)

    def store(
        self, *, scores: torch.Tensor | None = None, features: torch.Tensor | None = None, **outputs: torch.Tensor
    ) -> None:
        """Keep candidates of the last batch with these outputs of its forward pass, and begin the next draw.

        Returns at once; insertion and draw hide behind the backward pass. Outputs may be given for the whole joined
        batch, whose new samples come first, or for these alone. They are detached and cast to the field's dtype.

        Args:
            scores: One per sample, floats (samples,), for a policy or a draw that needs them.
            features: One vector per sample, floats (samples, d), for a policy that needs them.
            **outputs: The fields of the schema that the loader does not bring, (samples, *shape).

        Raises:
            RuntimeError: no batch waits for outputs, because none was yielded since the last call, or because the
                loader brings everything.
            ValueError: an output is missing, does not fit the schema, or is brought by the loader.
        """
        new = self._unstored
        if new is None:
            raise RuntimeError("There is no batch to store: call store() once after each batch that needs outputs.")
        if surplus := sorted(set(outputs) & set(new.fields)):
            raise ValueError(f"The loader brings {surplus} already: store only {list(new.missing)}.")
        schema = self.buffer.schema
        cast = {name: rows.to(schema[name].torch_dtype) for name, rows in outputs.items() if name in schema}
        kept = {name: rows[: new.count].detach() for name, rows in (outputs | cast).items()}
        self.buffer.offer(
            new.fields | kept,
            labels=new.labels,
            scores=None if scores is None else scores[: new.count].detach(),
            features=None if features is None else features[: new.count].detach(),
        )
        self._unstored = None

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch to whatever shuffles by it: the loader, its dataset, its samplers."""
        batch_sampler = getattr(self.loader, "batch_sampler", None)
        parts = (
            self.loader,
            getattr(self.loader, "dataset", None),
            getattr(self.loader, "sampler", None),
            batch_sampler,
            getattr(batch_sampler, "sampler", None),
        )
        for part in {id(part): part for part in parts if hasattr(part, "set_epoch")}.values():
            part.set_epoch(epoch)  # type: ignore[union-attr]

    def state_dict(self) -> dict[str, Any]:
        """Return the buffer's state on this rank, and the loader's if it has one; waits for the background.

        Every rank must save its own. A batch that was not stored yet is not part of it.
        """
        state: dict[str, Any] = {"buffer": self.buffer.state_dict()}
        if hasattr(self.loader, "state_dict"):
            state["loader"] = self.loader.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned on this rank, and begin a draw for the first batch.

        Call it on every rank: it waits for the others as `RehearsalBuffer.load_state_dict` does.

        Raises:
            ValueError: see `RehearsalBuffer.load_state_dict`.
        """
        self.buffer.load_state_dict(state["buffer"])
        if "loader" in state:
            self.loader.load_state_dict(state["loader"])  # type: ignore[attr-defined]
        self._unstored = None
        self.buffer.offer(None)

    def _read(self, loaded: Any) -> _NewSamples:
        found = self._named(loaded)
        schema = self.buffer.schema
        brought = {name: found[name] for name in schema if name in found}
        if not brought:
            raise ValueError(f"The loader's batches have {sorted(found)}, and none of the buffer's {list(schema)}.")
        if self._labels is not None and self._labels not in found:
            raise ValueError(f"The loader's batches have {sorted(found)}, but no labels {self._labels!r}.")
        needed = {"scores": self.buffer.needs_scores, "features": self.buffer.needs_features}
        missing = [name for name in schema if name not in found] + [name for name in needed if needed[name]]
        return _NewSamples(
            fields=brought,
            labels=None if self._labels is None else found[self._labels],
            count=schema.check_batch(brought, names=tuple(brought)),
            missing=tuple(missing),
        )

    def _named(self, loaded: Any) -> Mapping[str, torch.Tensor]:
        if callable(self._fields):
            return self._fields(loaded)
        if self._fields is not None:
            parts = tuple(loaded)
            if len(self._fields) != len(parts):
                raise ValueError(f"The loader's batches have {len(parts)} parts, but fields names {self._fields!r}.")
            return dict(zip(self._fields, parts, strict=True))
        if isinstance(loaded, Mapping):
            return loaded
        raise ValueError(f"The loader's batches are of type {type(loaded).__name__}: name their parts by fields=(...).")

    def _join(self, new: _NewSamples, representatives: Representatives, loaded: Any) -> RehearsalBatch:
        device, rehearsed = self.buffer.device, len(representatives)

        def joined(first: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
            # what is drawn lies in memory that is written anew: a copy of it must be done on return
            # so must what comes from a GPU to the CPU, whose next step does not wait for a stream
            return torch.cat([first.to(device, non_blocking=device.type != "cpu"), drawn.to(device)])

        def rows_of(name: str) -> torch.Tensor:
            field = self.buffer.schema[name]
            rows = new.fields.get(name)
            return torch.zeros(new.count, *field.shape, dtype=field.torch_dtype) if rows is None else rows

        return RehearsalBatch(
            {name: joined(rows_of(name), drawn) for name, drawn in representatives.tensors.items()},
            _Samples(
                new=new.count,
                rehearsed=torch.arange(new.count + rehearsed, device=device) >= new.count,
                labels=None if new.labels is None else joined(new.labels.long(), representatives.labels),
                ids=joined(torch.full((new.count,), -1), representatives.ids),
                loaded=loaded,
            ),
        )
