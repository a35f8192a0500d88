"""A fingerprint stands for content and split; a corpus that cannot serve the run is refused at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mhc_lab.config import RunConfig, compose
from mhc_lab.data.corpus import TokenCorpus, corpus_fingerprint, load_corpus
from mhc_lab.errors import LabError

TEXT = "".join(f"{i} bottles of beer on the wall\n" for i in range(200))


def _text(*files: Path | str, overrides: tuple[str, ...] = ()) -> RunConfig:
    names = ", ".join(map(str, files))
    return compose(["data=text", f"data.files=[{names}]", "model.sequence_length=16", *overrides])


def test_corpus_needs_no_torch() -> None:
    code = (
        "import sys; from mhc_lab.config import compose; from mhc_lab.data.corpus import corpus_fingerprint;"
        "print(corpus_fingerprint(compose([]))); print([m for m in ('torch', 'lightning') if m in sys.modules])"
    )
    fingerprint, imported = subprocess.check_output([sys.executable, "-c", code], text=True).split("\n")[:2]
    assert imported == "[]"
    assert fingerprint == corpus_fingerprint(compose([]))  # the same in another process


def test_stdlib_says_which_python() -> None:
    corpus = load_corpus(compose([]))
    assert isinstance(corpus, TokenCorpus)
    assert corpus.vocab_size == 256
    assert sys.version.split()[0] in corpus.description
    assert len(corpus.train) > 3_000_000


def test_corpus_is_kept_for_the_process() -> None:
    assert load_corpus(compose(["residual=identity"])) is load_corpus(compose(["residual=mhc", "seed=3"]))


def test_fingerprint_knows_content_and_split_but_no_names_or_times(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("first", "second", "third")]
    for place in places:
        place.mkdir()
    for name, text in (("a.txt", TEXT), ("b.txt", TEXT[::-1])):
        (places[0] / name).write_text(text)
        (places[1] / f"{'z' if name == 'a.txt' else 'y'}.md").write_text(text)
        (places[2] / name).write_text(text[:-1] + "!")
        os.utime(places[1] / f"{'z' if name == 'a.txt' else 'y'}.md", (0, 0))
    first = corpus_fingerprint(_text(f"{places[0]}/*"))
    assert len(first) == 16
    assert set(first) <= set("0123456789abcdef")
    assert corpus_fingerprint(_text(places[0] / "b.txt", places[0] / "a.txt")) == first
    assert corpus_fingerprint(_text(f"{places[1]}/*")) == first
    assert corpus_fingerprint(_text(f"{places[2]}/*")) != first
    assert corpus_fingerprint(_text(places[0] / "a.txt")) != first
    assert corpus_fingerprint(_text(f"{places[0]}/*", overrides=("data.val_fraction=0.2",))) != first


def test_fingerprint_of_synthetic() -> None:
    prints = {
        corpus_fingerprint(compose(["data=synthetic", f"data.task={task}", f"data.synthetic_vocab={vocab}"]))
        for task in ("copy", "recall", "induction")
        for vocab in (16, 32)
    }
    assert len(prints) == 6
    one = compose(["data=synthetic"])
    other = compose(["data=synthetic", "seed=1", "control=true", "model.sequence_length=64"])
    assert corpus_fingerprint(one) == corpus_fingerprint(other)


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert corpus_fingerprint(_text("~/*.txt")) == corpus_fingerprint(_text(tmp_path / "a.txt"))
    with pytest.raises(LabError, match="no such user"):
        _text("~nobody-of-this-name/a.txt")


@pytest.mark.parametrize(
    ("size", "overrides", "message"),
    [
        (15, (), "14 bytes for training, but one window takes 17"),
        (100, (), "5 bytes for validation, but one window takes 17"),
        (1000, ("model.vocab_size=100",), "model.vocab_size=100: data=text has 256 tokens"),
        (1000, ("trainer=ddp", "trainer.devices=4"), "3 validation windows for 4 devices"),
    ],
)
def test_corpus_that_cannot_serve_the_run(tmp_path: Path, size: int, overrides: tuple[str, ...], message: str) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * size)
    with pytest.raises(LabError, match=message):
        load_corpus(_text(tmp_path / "a.txt", overrides=overrides))


def test_shortest_corpus_that_serves(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 34)
    corpus = load_corpus(_text(tmp_path / "a.txt", overrides=("data.val_fraction=0.5",)))
    assert corpus.val_count(64, 16) == 1
    assert len(corpus.train_window((0, 0, 0, 0), 16)[0]) == 16


@pytest.mark.parametrize(("task", "shortest"), [("recall", 7), ("induction", 15)])
def test_window_too_short_for_the_task(task: str, shortest: int) -> None:
    settings = ["data=synthetic", f"data.task={task}"]
    load_corpus(compose([*settings, f"model.sequence_length={shortest}"]))
    with pytest.raises(LabError, match=f"data.task={task} needs at least {shortest}"):
        load_corpus(compose([*settings, f"model.sequence_length={shortest - 1}"]))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (np.random.default_rng(0).integers(0, 50257, 400, dtype=np.uint16).tobytes(), "is no text"),
        (np.random.default_rng(0).integers(1, 256, 400, dtype=np.uint8).tobytes(), "is no text"),
        ("Grüße".encode("utf-16") * 50, "UTF-16 text: write it as UTF-8"),
        (b"text with one \0 in it" * 20, "NUL bytes"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "train.bin").write_bytes(content)
    with pytest.raises(LabError, match=says):
        load_corpus(_text(tmp_path / "train.bin"))


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-8-sig"])
def test_text_of_any_eight_bit_encoding_is_text(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(("Grüße, Straße und Öl.\r\n\t" * 200).encode(encoding))
    assert load_corpus(_text(tmp_path / "a.txt")).vocab_size == 256
