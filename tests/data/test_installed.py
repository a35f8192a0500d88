"""The text of installed packages: each text once, no names, no machine's files."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from mhc_lab.config.compose import compose
from mhc_lab.data.corpus import load_corpus
from mhc_lab.data.installed import LARGEST, read_installed
from mhc_lab.errors import LabError


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    return tmp_path


def put(site: Path, **files: str | bytes) -> None:
    for name, content in files.items():
        path = site / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def test_text_counts_once_and_what_is_no_text_never(site: Path) -> None:
    put(site, a__x_DOT_py="one", b__copy_DOT_py="one", b__README_DOT_md="two", single_DOT_py="three")
    kept = read_installed(1e-9)
    put(site, a__lib_DOT_so="no", a__wide_DOT_txt=b"\0n\0o", a__latin_DOT_py=b"\xe9\xe9", a__empty_DOT_py="")
    put(site, a__big_DOT_txt="n" * (LARGEST + 1), a__pycache_DOT_data__m_DOT_py="no", mhc_lab__own_DOT_py="no")
    (site / "p-1.dist-info").mkdir()
    (site / "p-1.dist-info" / "top_level.txt").write_text("p")
    assert read_installed(1e-9) == kept
    assert sorted(kept.train) == sorted(b"onetwothree")
    assert kept.description == "text of 3 installed Python packages, 3 files"


def test_whole_files_are_held_back_whatever_their_names(site: Path) -> None:
    texts = [f"text number {number}. " for number in range(200)]
    put(site, **{f"p{number}__m_DOT_py": text for number, text in enumerate(texts)})
    first = read_installed(0.3)
    held = [text for text in texts if text.encode() in first.val]
    assert 40 < len(held) < 80
    assert len(first.val) == sum(map(len, held))
    for number in range(200):
        (site / f"p{number}" / "m.py").rename(site / f"p{number}" / "n.py")
    put(site, more__m_DOT_py="another text")
    second = read_installed(0.3)
    assert {text for text in texts if text.encode() in second.val} == set(held)


def test_a_machine_without_packages(site: Path) -> None:
    with pytest.raises(LabError, match="data=stdlib or data=text"):
        read_installed(0.05)
    assert not list(site.iterdir())


def test_it_is_a_source_like_the_others() -> None:
    corpus = load_corpus(compose(["data=installed"]))
    assert corpus.vocab_size == 256
    assert "installed Python packages" in corpus.description
    assert corpus.val_count(64, 128) == 64
