"""What can be asked for, and the words for what cannot."""

from __future__ import annotations

import pytest
import torch

from mhc_lab.bench.options import Options, numbers, parse
from mhc_lab.errors import LabError


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["speed"], "there is no 'speed'"),
        (["ops", "--device", "tpu"], "there is no 'tpu'"),
        (["ops", "--dtype", "fp8"], "fp8"),
        (["ops", "--dims", "0"], "at least 1"),
        (["ops", "--tokens", "12,many"], "whole numbers"),
        (["ops", "--streams", "17"], "1 to 16"),
        (["ops", "--rounds", "-1"], "negative"),
        (["ops", "--cases", "wirte"], "did you mean 'write'"),
        (["ops", "--rivals", "lieger"], "did you mean 'liger'"),
        (["step", "--rivals", "liger"], "lucidrains"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], words: str) -> None:
    with pytest.raises(LabError, match=words):
        parse(arguments).check()


def test_a_gpu_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(LabError, match="no GPU"):
        Options("ops", device="cuda").check()


def test_shapes_are_every_width_at_every_number_of_tokens() -> None:
    options = parse(["ops", "--device", "cpu", "--dims", "128,256", "--tokens", "64,32", "--streams", "2"])
    options.check()
    assert [(s.dim, s.tokens) for s in options.shapes()] == [(128, 64), (128, 32), (256, 64), (256, 32)]
    assert {(s.streams, s.dtype) for s in options.shapes()} == {(2, torch.float32)}
    (quick,) = Options("ops", device="cpu", quick=True).shapes()
    assert quick.tokens == 256


def test_rivals() -> None:
    assert parse(["ops", "--rivals", ""]).contenders == []
    assert "compile" in Options("ops").contenders
    assert "compile" not in Options("ops", quick=True).contenders
    assert numbers(" 1, 2") == [1, 2]
