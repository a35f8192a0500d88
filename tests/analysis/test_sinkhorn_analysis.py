"""Measures against direct computation in fp64, the incremental iteration against `project`, and the recommendation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mhc_lab.analysis.logits import captured, drawn
from mhc_lab.analysis.measures import contraction, gains, sums
from mhc_lab.analysis.precision import ITERATED, PRECISIONS, limit, projected
from mhc_lab.analysis.recommend import recommendation, smallest, upper_bound
from mhc_lab.analysis.study import Settings, analyse
from mhc_lab.analysis.trained import open_run
from mhc_lab.analysis.trajectory import trajectory
from mhc_lab.residual.gains import composites


@pytest.mark.parametrize("convention", ["eq9", "v4"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("algorithm", ITERATED)
def test_going_on_is_starting_anew(algorithm, precision, convention):
    logits = drawn(4, 1.5, 3, 8, seed=0).values
    rounding = 1e-5 if precision == "float32" else 0.02
    for t, found in enumerate(trajectory(logits, algorithm, 6, convention, precision), start=1):
        anew = projected(logits.contiguous(), algorithm, t, convention, precision)
        assert found.dtype == anew.dtype
        torch.testing.assert_close(found.double(), anew.double(), rtol=0, atol=rounding)


def test_measures_by_hand():
    logits = drawn(3, 1.0, 5, 7, seed=1).values
    matrices = projected(logits, "plain", 2, "eq9", "float32")
    products = torch.stack(composites(list(matrices)))  # [L, T, n, n]
    found = gains(matrices)
    torch.testing.assert_close(found.composite_backward, products.sum(-2).abs().amax(-1).amax(0))
    torch.testing.assert_close(found.composite_forward, products.sum(-1).abs().amax(-1).amax(0))
    torch.testing.assert_close(found.backward, matrices.double().sum(-2).abs().amax(-1))
    assert sums(matrices)["column_error_max"] == pytest.approx(float((matrices.double().sum(-2) - 1).abs().max()))
    basis = np.linalg.qr(np.c_[np.ones(3), np.eye(3)[:, 1:]])[0][:, 1:]
    within = [np.linalg.norm(basis.T @ m @ basis, 2) for m in matrices.flatten(0, 1).double().numpy()]
    told = contraction(matrices)
    assert told["contraction"] == pytest.approx(np.mean(within))
    whole = [np.linalg.norm(basis.T @ m @ basis, 2) for m in products[0].numpy()]
    assert told["composite_contraction"] == pytest.approx(np.sort(whole)[3], rel=1e-4)


def test_the_upper_bound_holds_as_often_as_it_says():
    assert upper_bound(np.arange(2994)) is None
    assert upper_bound(np.arange(2995)) == 2994
    generator = np.random.default_rng(0)
    above = [upper_bound(generator.random(200), q=0.9) > 0.9 for _ in range(400)]
    assert 0.92 < np.mean(above) < 0.995


def test_a_recommendation_from_constructed_gains():
    worst = {1: 1.5, 2: 1.04, 3: 1.06, 4: 1.03, 5: 1.01}
    assert smallest(worst, 1.05) == 4  # 2 does not stay below
    assert smallest({1: 1.0, 2: float("nan")}, 1.05) is None
    layers = [dict.fromkeys(worst, 1.0), {**dict.fromkeys(worst, 1.04), 5: 1.0}]
    advice = recommendation(worst, dict.fromkeys(worst), layers, 1.05)
    assert (advice["t_max"], advice["t_max_upper"], advice["layer_t_max"]) == (4, None, [1, 5])
    assert advice["demanding"] == [1]
    assert advice["layer_bound"] == pytest.approx(1.05**0.5)
    assert recommendation(worst, worst, layers, 1.001)["t_max"] is None


def test_errors_vanish_as_t_grows():
    found = analyse(drawn(4, 1.0, 4, 64, seed=0), Settings(["plain", "warm"], ["float32"], t_max=40, timing=False))
    for algorithm in ("plain", "warm"):
        rows = [row for row in found["rows"] if row["algorithm"] == algorithm]
        assert rows[0]["gradient_error_median"] > 0.01 > 1e-4 > rows[-1]["gradient_error_median"]
        assert rows[0]["column_error_max"] > 0.01 > 1e-5 > rows[-1]["column_error_max"]
    assert all(advice["truth_error"] < 1e-12 for advice in found["recommendations"])
    assert float((limit(torch.zeros(1, 3, 3)) - 1 / 3).abs().max()) < 1e-12


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_captured_logits_give_the_models_own_h_res(mode, trained_run):
    folder = trained_run("residual=mhc", f"residual.h_res={mode}")
    trained = open_run(folder.path)
    layers = []
    with torch.no_grad():
        trained.model(trained.batches[0][0][:2], trace=layers)
    logits = captured(trained, windows=2, tokens=64, seed=0)
    assert logits.values.shape == (4, 64 if mode == "dynamic" else 1, 4, 4)
    found = projected(logits.values, "plain", trained.config.residual.t_max, "eq9", "float32")
    for layer, matrices in zip(layers, found, strict=True):
        own = layer.h_res.flatten(0, 1)[: len(matrices)].cpu()
        torch.testing.assert_close(matrices.contiguous(), own, rtol=1e-4, atol=1e-5)
