"""The language model of the examples: its short form on two ranks, and how it reads texts."""

from __future__ import annotations

import gzip
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "language_model.py"
IN_THE_END = ("YAML", "4/4 of the steps")
"""The second cell of the rows that tell the losses after the last language."""


@pytest.fixture(scope="module")
def example() -> ModuleType:
    specification = importlib.util.spec_from_file_location("language_model", EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look up their module by name
    specification.loader.exec_module(module)
    return module


def test_with_the_buffer_the_first_languages_are_remembered(tmp_path: Path) -> None:
    out = tmp_path / "tables.md"
    subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
            str(EXAMPLE), "--short", "--shipped", "--out", str(out),
        ],
        env=os.environ | {"PYTHONPATH": str(EXAMPLE.parents[1] / "src"), "OMP_NUM_THREADS": "1"},
        check=True, timeout=200,
    )  # fmt: skip
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.read_text().splitlines() if "|" in line]
    after_last = {row[0].split(",")[0]: [float(loss) for loss in row[2:]] for row in rows if row[1] in IN_THE_END}
    assert set(after_last) == {"incremental", "ER", "DER++", "joint"}
    # measured on five seeds: ER 0.61 to 0.72 lower, DER++ 0.52 to 0.63, joint 0.74 to 0.92
    first = {method: losses[0] for method, losses in after_last.items()}
    assert first["ER"] < first["incremental"] - 0.3
    assert first["DER++"] < first["incremental"] - 0.3
    assert first["joint"] < first["incremental"] - 0.3
    # and the last language is learnt by all of them
    (counts,) = (float(row[-1]) for row in rows if row[0] == "byte counts")
    assert max(losses[-1] for losses in after_last.values()) < counts - 0.5


def test_pages_are_read_without_mark_up_and_without_their_other_names(example: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "de" / "man1"
    folder.mkdir(parents=True)
    roff = '.\\" Kommentar\n.TH LS 1\n.SH NAME\n\\fBls\\fP \\- zeigt \\fI\\,Größen\\/\\fP an\n.\n\\}\n.PP\nEin Satz.\n'
    (folder / "ls.1.gz").write_bytes(gzip.compress(roff.encode()))
    (folder / "dir.1.gz").symlink_to(folder / "ls.1.gz")
    assert example.manual_pages(["de"], tmp_path) == {"de": {"ls.1.gz": "ls - zeigt Größen an\nEin Satz.\n"}}


def test_missing_manual_pages_name_the_packages(example: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"apt-get install manpages-de manpages-pt-br; .*--help"):
        example.manual_pages(["de", "pt_BR"], tmp_path)


def test_too_few_manual_pages_name_the_package(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian has some pages in many languages, of packages that are always there."""
    pages = {"dpkg.1.gz": "Una página. " * 9000, "apt.8.gz": "Otra página. " * 9000}
    monkeypatch.setattr(example, "manual_pages", lambda languages: dict.fromkeys(languages, pages))
    monkeypatch.setattr(sys, "argv", ["language_model.py", "--manuals", "es", "pt_BR"])
    with pytest.raises(SystemExit, match=r"es: 2 texts give 0 bytes to hold out, .*: apt-get install manpages-es; or"):
        example.main()


def test_what_is_held_out_is_in_no_training_window(example: ModuleType) -> None:
    size = example.Size(context=31, steps=2, held_out=4)
    documents = {f"document {number}": f"{number:03d}-" * 100 for number in range(200)}
    language = example.cut("numbers", documents, size, advice="")
    numbers = [
        {bytes(window.tolist())[start : start + 4] for window in windows for start in range(4)}
        for windows in (language.training, language.held_out)
    ]
    assert language.held_out.shape == (4, 32)
    assert not numbers[0] & numbers[1]


def test_texts_of_a_folder(example: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.txt").write_text("eins")
    (tmp_path / "a.txt").write_text("word " * 20000)
    texts = example.folder_texts(tmp_path)
    assert list(texts) == ["a", "b"]
    assert texts["b"] == {"one.txt": "eins"}
    size = example.Size(steps=50, held_out=20)
    # of one long document, parts are held out
    assert len(example.cut("a", texts["a"], size, advice="").held_out) == 20
    with pytest.raises(SystemExit, match=r"b: 1 texts give 4 bytes to learn from, 52000 are needed: write more\."):
        example.cut("b", texts["b"], size, advice="write more")


def test_one_language_is_not_enough(example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only.txt").write_text("text")
    monkeypatch.setattr(sys, "argv", ["language_model.py", "--texts", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"At least two languages.*found: only"):
        example.main()
