"""Measures against direct computation in fp64, the incremental iteration against `project`, and the recommendation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mhc_lab.analysis.logits import captured, drawn
from mhc_lab.analysis.measures import contraction, gains, spaced, sums
from mhc_lab.analysis.precision import ITERATED, PRECISIONS, limit, projected
from mhc_lab.analysis.recommend import recommendation, smallest, upper_bound
from mhc_lab.analysis.study import Settings, analyse
from mhc_lab.analysis.timing import nanoseconds
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


@pytest.mark.parametrize("precision", ["float32", "mixed"])
def test_logits_that_are_far_apart_are_iterated_as_training_does(precision):
    """In fp32 alone some would divide 0 by 0."""
    logits = drawn(4, 50.0, 2, 64, seed=0).values
    for t, found in enumerate(trajectory(logits, "plain", 5, "eq9", precision), start=1):
        assert found.isfinite().all()
        torch.testing.assert_close(found, projected(logits.contiguous(), "plain", t, "eq9", precision))
    (row,) = analyse(drawn(4, 50.0, 2, 64, seed=0), Settings(["plain"], ["bfloat16"], t_max=1, timing=False))["rows"]
    assert np.isnan(row["sigma2"])  # bf16 does divide 0 by 0, which is no crash
    (row,) = analyse(drawn(4, 50.0, 2, 64, seed=0), Settings(["plain"], [precision], t_max=1, timing=False))["rows"]
    assert 0 < row["sigma2"] < 1.1


def test_measures_are_of_tokens_from_all_over():
    values = torch.arange(100).view(2, 50)
    assert spaced(values, 3, dim=1).tolist() == [[0, 24, 49], [50, 74, 99]]
    assert spaced(values, 200, dim=1).tolist() == values.tolist()


def test_what_warm_saves_is_told_beside_the_same_logits():
    notes = analyse(drawn(4, 1.0, 8, 64, seed=0), Settings(["warm"], ["float32"], t_max=20, timing=False))["notes"]
    (told,) = [note for note in notes if note.startswith("on warm's own logits plain needs ")]
    needed = int(told.split()[6])
    cold = drawn(4, 1.0, 8, 64, seed=0).cold
    for t, within in ((needed - 1, False), (needed, True)):
        worst = gains(projected(cold, "plain", t, "eq9", "float32")).worst
        assert (float(worst.max()) <= 1.05) is within


def test_a_limit_that_is_not_one_is_told():
    settings = Settings(["plain"], ["float32"], t_max=1, timing=False)
    assert not [note for note in analyse(drawn(4, 1.0, 2, 64, seed=0), settings)["notes"] if "itself off" in note]
    assert [note for note in analyse(drawn(4, 50.0, 2, 64, seed=0), settings)["notes"] if "itself off" in note]


def test_few_matrices_cost_as_much_each_as_many():
    """The cost of the calls is not theirs."""
    few, many = (
        min(nanoseconds(torch.randn(count, 4, 4), lambda leaf: torch.softmax(leaf, -1)) for _ in range(3))
        for count in (2, 2048)
    )
    assert few < 10 * many  # undivided it is hundreds of times as much


@pytest.mark.parametrize(
    ("mode", "how"),
    [
        ("dynamic", ()),
        ("static", ()),
        ("dynamic", ("residual.convention=v4",)),
        ("dynamic", ("residual.sinkhorn=warm", "residual.t_max=1", "trainer.max_steps=12", "optim.learning_rate=0.1")),
    ],
)
def test_captured_logits_give_the_models_own_h_res(mode, how, trained_run):
    folder = trained_run("residual=mhc", f"residual.h_res={mode}", *how)
    trained = open_run(folder.path)
    layers = []
    with torch.no_grad():
        trained.model(trained.batches[0][0][:2], trace=layers)
    logits = captured(trained, windows=2, tokens=64, seed=0)
    assert logits.values.shape == (4, 64 if mode == "dynamic" else 1, 4, 4)
    residual = trained.config.residual
    given = logits.warm if residual.sinkhorn == "warm" else logits.values
    found = projected(given, "plain", residual.t_max, residual.convention, "float32")
    for layer, matrices in zip(layers, found, strict=True):
        own = layer.h_res.flatten(0, 1)[: len(matrices)].cpu()
        torch.testing.assert_close(matrices.contiguous(), own, rtol=1e-4, atol=1e-5)
