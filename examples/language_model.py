"""A small language model is pre-trained on one language after another, with and without a rehearsal buffer.

    python -m torch.distributed.run --standalone --nproc-per-node=2 examples/language_model.py      # two ranks
    python examples/language_model.py                                                               # one process

A GPT reads the bytes of manual pages: first German ones, then Spanish, French and Russian ones; no language comes
again. After each language its loss on held-out pages of all of them is measured, in bits per byte:

    incremental    learns from the stream alone; a second run reads as many windows in a step as rehearsal does
    ER             experience replay: joins windows that the buffer draws from the past to those of the stream
    DER++          ER that also holds the logits of rehearsed windows to those they had when they were stored
    joint          reads all languages in random order, in as many steps of as many windows: the bound
    byte counts    no model: how often each byte occurs in the language's training text

An item of the buffer is a window of text, its class is the language: so all languages share the capacity equally.
"""

from __future__ import annotations

import argparse
import gzip
import math
import os
import re
import sys
import sysconfig
import zlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from ptychoflow.buffer import Field, RehearsalBuffer, RehearsalLoader, Schema


@dataclass(frozen=True)
class Size:
    """Of the model and its runs; numbers of windows are those of all ranks together."""

    layers: int = 2
    width: int = 288
    heads: int = 4
    context: int = 64  # bytes that the model sees; a window has one more, since the last is predicted too
    steps: int = 150  # per language
    new: int = 8  # windows of the stream in a step
    rehearsed: int = 8  # windows that the buffer adds to them (r)
    candidates: int = 4  # of the new windows, chosen at random, that the buffer is offered (c)
    capacity: int = 1200  # windows in the buffer: a quarter of what four languages bring
    held_out: int = 256  # windows per language that losses are measured on


@dataclass(frozen=True)
class Method:
    """What a step learns from; numbers of windows are those of all ranks together."""

    name: str
    new: int
    rehearsed: int = 0
    distillation: float = 0.0
    joint: bool = False


@dataclass(frozen=True)
class Language:
    """Windows of text, uint8 (windows, context + 1); those held out come from other documents."""

    name: str
    training: Tensor
    held_out: Tensor


OTHER_TEXTS = "see --help for other texts"

Results = dict[Method, list[list[list[float]]]]
"""Held-out bits per byte: [method][seed][after language][of language]."""


class Block(nn.Module):
    """Attention to the bytes before, then two linear layers; both are added to their input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_in = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3 * width))
        self.attention_out = nn.Linear(width, width)
        layers = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        self.feed_forward = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(windows, context, width) to the same."""
        query, key, value = self.attention_in(x).unflatten(-1, (3 * self.heads, -1)).transpose(1, 2).chunk(3, dim=1)
        attended = functional.scaled_dot_product_attention(rotate(query), rotate(key), value, is_causal=True)
        x = x + self.attention_out(attended.transpose(1, 2).flatten(2))
        return x + self.feed_forward(x)


def rotate(x: Tensor) -> Tensor:
    """Turn pairs of numbers by angles that grow with the position, so that products tell distances (rotary positions).

    (windows, heads, context, width of a head) to the same.
    """
    first, second = x.chunk(2, dim=-1)
    angles = torch.arange(x.shape[-2])[:, None] / 1e4 ** torch.linspace(0, 1, first.shape[-1])
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


class GPT(nn.Module):
    """Predicts every byte of a window from those before it."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, size.width)
        self.blocks = nn.Sequential(*(Block(size.width, size.heads) for _ in range(size.layers)))
        self.head = nn.Sequential(nn.LayerNorm(size.width), nn.Linear(size.width, 256))
        for matrix in (parameter for parameter in self.parameters() if parameter.ndim == 2):
            nn.init.normal_(matrix, std=0.02)

    def forward(self, text: Tensor) -> Tensor:
        """Bytes, int64 (windows, context), to logits (windows, context, 256)."""
        logits: Tensor = self.head(self.blocks(self.embedding(text)))
        return logits


def cross_entropy(logits: Tensor, windows: Tensor) -> Tensor:
    """Mean loss of all bytes of the windows but the first, in nats."""
    return functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def train(method: Method, languages: Sequence[Language], size: Size, seed: int) -> list[list[float]]:
    """Pre-train on one language after another; returns held-out bits per byte [after language][of language]."""
    torch.manual_seed(seed)
    ranks = distributed.get_world_size()
    model = DistributedDataParallel(GPT(size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.02, total_iters=50)
    losses = []
    with open_buffer(method, size, classes=len(languages), seed=seed) if method.rehearsed else nullcontext() as buffer:
        for section in stream(method, languages, size, seed):
            share: DistributedSampler[Any] = DistributedSampler(section, shuffle=False)
            loader: Any = DataLoader(section, batch_size=method.new // ranks, sampler=share)
            if buffer:
                loader = RehearsalLoader(loader, buffer, labels="language")
            for batch in loader:
                windows = batch["window"].long()
                logits = model(windows[:, :-1])
                loss = cross_entropy(logits, windows)
                if method.distillation:
                    loader.store(logits=logits)
                    stored = batch["logits"][batch.new :].float()
                    distance = functional.mse_loss(logits[batch.new :], stored, reduction="sum")
                    loss = loss + method.distillation * distance / max(1, stored.numel())
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                warm_up.step()
            losses.append([bits_per_byte(model.module, language.held_out) for language in languages])
    return losses


def open_buffer(method: Method, size: Size, *, classes: int, seed: int) -> RehearsalBuffer:
    """One buffer over all ranks; it keeps windows, and their logits if the method needs them."""
    schema = Schema(window=Field((size.context + 1,), "uint8"))
    if method.distillation:
        schema = Schema(**schema, logits=Field((size.context, 256), "float16"))
    ranks = distributed.get_world_size()
    r, c = method.rehearsed // ranks, size.candidates // ranks
    return RehearsalBuffer(schema, capacity=size.capacity, representatives=r, candidates=c, classes=classes, seed=seed)


def stream(method: Method, languages: Sequence[Language], size: Size, seed: int) -> list[Any]:
    """A data set per language with as many random windows as its steps take; of all languages for joint training."""
    generator = torch.Generator().manual_seed(seed)
    count = size.steps * method.new
    samples = [
        {"window": language.training[row], "language": torch.tensor(label)}
        for label, language in enumerate(languages)
        for row in torch.randperm(len(language.training), generator=generator)[:count]
    ]
    if method.joint:
        samples = [samples[index] for index in torch.randperm(len(samples), generator=generator)]
    return [samples[start : start + count] for start in range(0, len(samples), count)]


@torch.no_grad()
def bits_per_byte(model: nn.Module, held_out: Tensor) -> float:
    """Mean loss over held-out windows, of which every rank takes its part."""
    sums = torch.zeros(2, dtype=torch.float64)
    for windows in torch.split(held_out[distributed.get_rank() :: distributed.get_world_size()].long(), 32):
        sums += torch.tensor([float(cross_entropy(model(windows[:, :-1]), windows)) * len(windows), len(windows)])
    distributed.all_reduce(sums)
    return float(sums[0] / sums[1]) / math.log(2)


def byte_counts(language: Language) -> float:
    """Bits per byte of held-out text of a prediction that knows how often each byte occurs in training text."""
    counts = torch.bincount(language.training.flatten().long(), minlength=256) + 1.0
    return float(-(counts / counts.sum()).log2()[language.held_out[:, 1:].long()].mean())


def cut(name: str, documents: Mapping[str, str], size: Size, *, advice: str) -> Language:
    """Cut documents into windows; one document in ten, chosen by a hash of its title, is held out.

    `advice`: what to do where the documents are too short.
    """
    if len(documents) == 1:
        whole = next(iter(documents.values()))
        documents = {f"part {start}": whole[start : start + 5000] for start in range(0, len(whole), 5000)}
    texts, span = (bytearray(), bytearray()), size.context + 1
    for hashed, title in sorted((zlib.crc32(title.encode()), title) for title in documents):
        texts[hashed % 10 == 0].extend(documents[title].encode())
    needed = {"to learn from": size.steps * (size.new + size.rehearsed), "to hold out": size.held_out}
    for text, (purpose, windows) in zip(texts, needed.items(), strict=True):
        if len(text) < windows * span:
            sys.exit(
                f"{name}: {len(documents)} texts give {len(text)} bytes {purpose}, "
                f"{windows * span} are needed: {advice}."
            )
    training, held_out = (torch.frombuffer(text[: len(text) // span * span], dtype=torch.uint8) for text in texts)
    spread = torch.arange(size.held_out) * (len(held_out) // span // size.held_out)
    return Language(name, training.view(-1, span), held_out.view(-1, span)[spread])


def manual_pages(languages: Sequence[str], root: Path = Path("/usr/share/man")) -> dict[str, dict[str, str]]:
    """Texts of manual pages by language and file name; a page has the same name in all languages."""
    pages = {language: [*root.glob(f"{language}/man*/*.gz")] for language in languages}
    if missing := [language for language in languages if not pages[language]]:
        sys.exit(f"Manual pages are missing in {root}: {install(missing)}.")
    return {
        language: {
            path.name: plain(gzip.decompress(path.read_bytes()).decode(errors="replace"))
            for path in paths
            if not path.is_symlink()  # another name of a page, which must not be both learnt from and held out
        }
        for language, paths in pages.items()
    }


def install(languages: Sequence[str]) -> str:
    """What to do where there are no manual pages, or too few: other packages bring some in many languages."""
    packages = (f"manpages-{language.lower().replace('_', '-')}" for language in languages)
    return f"apt-get install {' '.join(packages)}; or {OTHER_TEXTS}"


def plain(roff: str) -> str:
    """The running text of a manual page: no requests, no changes of font, no lines with other mark-up."""
    text = re.sub(r"^['.].*\n?", "", roff, flags=re.MULTILINE)
    text = re.sub(r"\\(f(\(..|\[[^]]*\]|.)|[&,/|^:%])", "", text).replace("\\-", "-").replace("\\ ", " ")
    return "".join(line for line in text.splitlines(keepends=True) if "\\" not in line and line.strip())


def shipped_texts() -> dict[str, dict[str, str]]:
    """Languages that come with Python and PyTorch, so that nothing has to be installed."""
    packages = Path(torch.__file__).parents[1]
    return {
        "English": dict(topics),
        "C++": read(packages / "torch/include/c10", "**/*.h"),
        "Python": read(Path(sysconfig.get_path("stdlib")), "*.py"),
        "YAML": read(packages / "torchgen/packaged/ATen/native/native_functions.yaml"),
    }


def folder_texts(folder: Path) -> dict[str, dict[str, str]]:
    """A language for each file or folder in `folder`, in the order of their names."""
    return {path.stem: read(path) for path in sorted(folder.glob("[!.]*"))}


def read(root: Path, pattern: str = "**/*") -> dict[str, str]:
    """Texts of a file, or of all files in a folder, by path in it."""
    files = [path for path in ([root] if root.is_file() else root.glob(pattern)) if path.is_file()]
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8", errors="replace") for path in files}


def report(results: Results, languages: Sequence[Language], size: Size, seeds: Sequence[int]) -> str:
    """Markdown: what was trained, and two tables."""
    parameters = sum(parameter.numel() for parameter in GPT(size).parameters()) / 1e6
    return (
        f"Held-out loss in bits per byte, mean over seeds {', '.join(map(str, seeds))}. A GPT of {parameters:.1f} "
        f"million parameters, {size.steps} steps per language, {size.context} bytes of context; a buffer of "
        f"{size.capacity} windows, {size.candidates} candidates a step.\n\n"
        f"{losses_after_each(results, languages)}\n{losses_in_the_end(results, languages)}"
    )


def losses_after_each(results: Results, languages: Sequence[Language]) -> str:
    """Markdown: the loss on every language after every language, mean over seeds."""
    names = [language.name for language in languages]
    rows = [["method", "after", *names], ["---"] * (len(names) + 2)]
    for method, runs in results.items():
        for index, after in enumerate(names):
            losses = [f"{mean(run[index][of] for run in runs):.2f}" for of in range(len(names))]
            rows.append([method.name, f"{index + 1}/{len(names)} of the steps" if method.joint else after, *losses])
    rows.append(["byte counts", "", *(f"{byte_counts(language):.2f}" for language in languages)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def losses_in_the_end(results: Results, languages: Sequence[Language]) -> str:
    """Markdown: the loss in the end on all languages but the last, with its difference to the second row's per seed."""
    *names, last = (language.name for language in languages)
    past = {method: [mean(run[-1][:-1]) for run in runs] for method, runs in results.items()}
    compared = list(past.values())[1]
    rows = [["in the end", f"mean of {', '.join(names)}", "minus the second row, per seed", last], ["---"] * 4]
    for method, runs in results.items():
        spread = f" ± {stdev(past[method]):.3f}" if len(runs) > 1 else ""
        differences = (f"{ours - theirs:+.3f}" for ours, theirs in zip(past[method], compared, strict=True))
        of_last = f"{mean(run[-1][-1] for run in runs):.3f}"
        rows.append([method.name, f"{mean(past[method]):.3f}{spread}", ", ".join(differences), of_last])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> None:
    """Train with every method on every seed, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    texts = parser.add_mutually_exclusive_group()
    texts.add_argument("--manuals", nargs="+", metavar="LANGUAGE", default=["de", "es", "fr", "ru"], help="Debian's")
    texts.add_argument("--texts", type=Path, metavar="DIR", help="a file or folder per language, ordered by name")
    texts.add_argument("--shipped", action="store_true", help="English, C++, Python, YAML of Python and PyTorch")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--short", action="store_true", help="a smaller model and fewer steps")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the tables after every seed (Markdown)")
    options = parser.parse_args()
    size = Size(width=64, context=32, steps=60, capacity=480, held_out=128) if options.short else Size()
    if options.shipped:
        documents = shipped_texts()
    else:
        documents = folder_texts(options.texts) if options.texts else manual_pages(options.manuals)
    if len(documents) < 2:
        sys.exit(f"At least two languages are needed, one after another; found: {', '.join(documents) or 'none'}.")
    manuals = not (options.shipped or options.texts)
    languages = [
        cut(name, pages, size, advice=install([name]) if manuals else OTHER_TEXTS) for name, pages in documents.items()
    ]
    new, rehearsed, joined = size.new, size.rehearsed, size.new + size.rehearsed
    methods = (
        Method(f"incremental, {new} windows a step", new),
        Method(f"incremental, {joined} windows", joined),
        Method(f"ER, {new} + {rehearsed} windows", new, rehearsed),
        Method(f"DER++, {new} + {rehearsed} windows", new, rehearsed, distillation=0.1),
        Method(f"joint, {joined} windows", joined, joint=True),
    )
    if "RANK" in os.environ:  # torchrun tells the ranks how to find each other
        distributed.init_process_group("gloo")
    else:
        distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    if size.candidates % distributed.get_world_size():
        sys.exit("Start 1, 2 or 4 ranks: every one needs as many windows as the others.")
    results: Results = {method: [] for method in methods}
    for done, seed in enumerate(options.seeds, start=1):
        for method in methods:
            if distributed.get_rank() == 0:
                print(f"seed {seed}: {method.name}", file=sys.stderr)  # noqa: T201
            results[method].append(train(method, languages, size, seed))
        text = report(results, languages, size, options.seeds[:done])
        if options.out and distributed.get_rank() == 0:
            options.out.write_text(text, encoding="utf-8")
    if distributed.get_rank() == 0:
        print(text)  # noqa: T201
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
