# ruff: noqa: ARG001 -- stand-ins have the signatures of what they stand for
"""The gate lets right implementations through and stops wrong ones, and nothing is timed behind a red gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from mhc_lab.bench import run
from mhc_lab.bench.adapters import Absent, Adapter, Prepared
from mhc_lab.bench.cases import CASES, Shape, Tensors, pose
from mhc_lab.bench.gate import judge
from mhc_lab.bench.options import Options
from mhc_lab.bench.own import EAGER, OURS, UNFUSED
from mhc_lab.ops import backends

CPU = torch.device("cpu")


def shape_of(dtype: torch.dtype, streams: int = 4) -> Shape:
    return Shape(tokens=70, dim=24, streams=streams, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_our_operations_pass(case: str, dtype: torch.dtype) -> None:
    problem = pose(CASES[case], shape_of(dtype), CPU)
    for adapters in (OURS, EAGER, UNFUSED):
        if case in adapters:
            verdict = judge(Prepared(adapters[case], problem))
            assert verdict.green, verdict


def spoiled(case: str, spoil: Callable[[Tensors], Tensors]) -> Adapter:
    """Our equations with something changed in what they give."""
    right = EAGER[case]
    return dataclasses.replace(right, run=lambda x, s: spoil(right.run(x, s)))


def _scaled_gradient(tensors: Tensors) -> Tensors:
    """Right values, and gradients 5 % too large."""
    return {name: value + 0.05 * (value - value.detach()) for name, value in tensors.items()}


def _one_nan(tensors: Tensors) -> Tensors:
    spot = torch.zeros_like(tensors["written"])
    spot[-1, -1, -1] = float("nan")
    return {**tensors, "written": tensors["written"] + spot}


WRONG: dict[str, tuple[str, Callable[[Tensors], Tensors]]] = {
    "values": ("write", lambda t: {"written": t["written"] * 1.05}),
    "gradients": ("write", _scaled_gradient),
    "a NaN": ("write", _one_nan),
    "transposed": ("sinkhorn", lambda t: {"h_res": t["h_res"].mT}),
    "no factor 2": ("coefficients", lambda t: {**t, "post": t["post"] / 2}),
    "a lost token": ("read", lambda t: {"hidden": torch.cat([t["hidden"][:-1], 0 * t["hidden"][-1:]])}),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_implementation_is_stopped(what: str) -> None:
    case, spoil = WRONG[what]
    problem = pose(CASES[case], shape_of(torch.bfloat16), CPU)
    with pytest.raises(Absent, match="wrong"):
        run.admit("somebody", spoiled(case, spoil), problem)


def test_a_sinkhorn_that_ends_with_the_other_side_is_stopped() -> None:
    """After 20 iterations both are doubly stochastic to 1e-4: the gate looks after 2 as well."""
    problem = pose(CASES["coefficients"], shape_of(torch.bfloat16), CPU)
    error = judge(Prepared(dataclasses.replace(EAGER["coefficients"], transposed=True), problem))
    assert error.green
    with pytest.raises(Absent, match="wrong"):
        run.admit("somebody", dataclasses.replace(EAGER["coefficients"], transposed=True), problem)


def test_an_implementation_that_fails_is_named_with_its_reason() -> None:
    def fail(x: Tensors, s: Shape) -> Tensors:
        raise RuntimeError("no kernel image is available")

    problem = pose(CASES["read"], shape_of(torch.float32), CPU)
    with pytest.raises(Absent, match="failed: RuntimeError: no kernel image"):
        run.admit("somebody", Adapter(fail), problem)
    with pytest.raises(Absent, match="only 3 streams"):
        run.admit("somebody", Adapter(fail, refuses=lambda _: "only 3 streams"), problem)


def test_a_shape_that_differs_is_wrong() -> None:
    problem = pose(CASES["read"], shape_of(torch.float32), CPU)

    def flat(x: Tensors, s: Shape) -> Tensors:
        return {"hidden": (x["h_pre"].unsqueeze(-1) * x["streams"]).sum(-2, keepdim=True)}

    with pytest.raises(Absent):
        run.admit("somebody", Adapter(flat, encode=lambda t, _: _lifted(t)), problem)


def _lifted(tensors: Tensors) -> Tensors:
    return {name: value.unsqueeze(-2) if name == "hidden" else value for name, value in tensors.items()}


def test_a_red_gate_keeps_a_contender_out_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {**EAGER, "read": spoiled("read", lambda t: {"hidden": 2 * t["hidden"]})}
    monkeypatch.setattr(run, "EAGER", wrong)
    options = Options("ops", device="cpu", dims=[16], tokens=[32], cases=["read", "write"], rivals=["eager"], rounds=2)
    found = run.run_ops(options, say=lambda _: None, keep=lambda _: None)
    timed = {(row["case"], row["contender"]) for row in found.rows}
    assert ("write", "eager") in timed
    assert ("read", "ours") in timed
    assert ("read", "eager") not in timed
    (note,) = found.notes
    assert note.startswith("eager: read C=16 tokens=32: wrong: ")


def test_a_reference_in_place_of_our_kernel_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = pose(CASES["read"], shape_of(torch.float32), CPU)
    monkeypatch.setattr(backends, "_broken", {("read", "gpu")})
    with pytest.raises(Absent, match="failed to launch: gpu read"):
        run.admit("ours", OURS["read"], problem)


def test_gradients_of_shared_inputs_are_summed_over_all_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = pose(CASES["coefficients"], shape_of(torch.float32), CPU)
    prepared = Prepared(EAGER["coefficients"], problem)
    whole = judge(prepared)
    monkeypatch.setattr("mhc_lab.bench.gate.CHUNK", 16)
    pieces = judge(prepared)
    assert whole.green
    assert pieces.green
