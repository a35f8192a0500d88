"""Vectors of the CPU kernels: rows that are no multiple of a register, e^x, sums over lanes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from numba import njit

from mhc_lab.ops.matrices import at, get, matrix, put, shaped
from mhc_lab.ops.products import gram, mix
from mhc_lab.ops.vector_functions import exp, peak, total, totals
from mhc_lab.ops.vectors import lanes, lanes_of, largest, load, splat, store

DTYPES = [np.float32, np.float64]


@njit
def apply_exp(x, out):
    x, out = matrix(x), matrix(out)
    for c in range(0, lanes(x) * 2000, lanes(x)):
        store(out, 0, c, None, exp(load(x, 0, c, None)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp(dtype) -> None:
    limits = np.finfo(dtype)
    x = np.linspace(np.log(limits.tiny) + 2, np.log(limits.max), lanes_of(dtype) * 2000).astype(dtype)
    special = {0.0: 1.0, -np.inf: 0.0, np.inf: np.inf, -1e5: 0.0, 1e5: np.inf}
    x[: len(special)] = list(special)
    x[len(special)] = np.nan
    out = np.zeros_like(x)
    apply_exp(x, out)
    with np.errstate(over="ignore"):
        expected = np.exp(x.astype(np.longdouble))
    usual = slice(len(special) + 1, -2)  # the last may round to inf
    assert np.abs(out[usual] / expected[usual] - 1).max() < limits.eps
    assert out[: len(special)].tolist() == list(special.values())
    assert np.isnan(out[len(special)])


@njit
def copy_row(source, target, left):
    source, target = matrix(source), matrix(target)
    step, c = lanes(source), 0
    while c + step <= left:
        store(target, 1, c, None, load(source, 0, c, None))
        c += step
    if c < left:
        store(target, 1, c, left - c, load(source, 0, c, left - c) + splat(source_zero(source)))


@njit
def source_zero(source):
    return get(source, 0, 0) - get(source, 0, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("left", [1, 3, 15, 16, 17, 40])
def test_a_part_of_a_vector_touches_nothing_else(dtype, left: int) -> None:
    source = np.full((1, left), 2, dtype)
    target = np.full((3, left + 20), np.nan, dtype)
    copy_row(source, target, left)
    assert (target[1, :left] == 2).all()
    assert np.isnan(target[1, left:]).all()
    assert np.isnan(target[[0, 2]]).all()


@njit
def reduced(x, out):
    x, out = matrix(x), matrix(out)
    a, b, c, d = load(x, 0, 0, None), load(x, 1, 0, None), load(x, 2, 0, None), load(x, 3, 0, None)
    for k, value in enumerate(totals(a, b, c, d)):
        put(out, 0, k, value)
    put(out, 0, 4, total(a))
    put(out, 0, 5, peak(largest(a, b)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_over_lanes(dtype) -> None:
    x = np.random.default_rng(0).standard_normal((4, lanes_of(dtype))).astype(dtype)
    out = np.zeros(6, dtype)
    reduced(x, out)
    np.testing.assert_allclose(out, [*x.sum(1), x[0].sum(), x[:2].max()], rtol=20 * np.finfo(dtype).eps)


@njit
def places(x, out):
    x = matrix(x)
    put(matrix(out), 0, 0, get(at(x, 1, 2), 1, 1))
    put(matrix(out), 0, 1, get(shaped(x, 2), 3, 1))


def test_a_matrix_from_the_middle_and_in_other_rows() -> None:
    x, out = np.arange(24.0).reshape(4, 6), np.zeros(2)
    places(x, out)
    assert out.tolist() == [x[2, 3], x.reshape(-1, 2)[3, 1]]


@njit
def add_mixed(out, rows, weights, n_out, n_rows):
    mix(at(matrix(out), 1, 0), n_out, None, matrix(rows), 0, matrix(rows), n_rows, matrix(weights), n_rows, 1)


@njit
def mixed(out, first, rows, weights, n_out, n_rows):
    w = matrix(weights)
    mix(at(matrix(out), 1, 0), n_out, matrix(first), w, 2, matrix(rows), n_rows, w, 1, n_out)


@njit
def products(a, b, out, n_a, n_b):
    gram(matrix(a), n_a, matrix(b), n_b, matrix(out), 1, n_a)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 5, 16, 31, 48, 70])
@pytest.mark.parametrize(("n_out", "n_rows"), [(4, 4), (1, 4), (4, 24), (5, 3), (8, 8), (3, 14), (1, 0)])
def test_products_are_numpys(dtype, dim: int, n_out: int, n_rows: int) -> None:
    generator = np.random.default_rng(0)

    def draw(*shape: int):
        return generator.standard_normal(shape).astype(dtype)

    tolerance = {"rtol": 1e3 * np.finfo(dtype).eps, "atol": 1e3 * np.finfo(dtype).eps}
    rows, first, out, weights = draw(n_rows, dim), draw(1, dim), draw(n_out + 2, dim), draw(n_out * max(n_rows, 2))
    before = out.copy()
    table = weights[: n_out * n_rows].reshape(n_out, n_rows)
    add_mixed(out, rows, weights, n_out, n_rows)
    np.testing.assert_allclose(out[1:-1], before[1:-1] + table @ rows, **tolerance)
    mixed(out, first, rows, weights, n_out, n_rows)
    across = weights[: n_out * n_rows].reshape(n_rows, n_out).T
    np.testing.assert_allclose(out[1:-1], weights[: 2 * n_out : 2, None] * first + across @ rows, **tolerance)
    assert (out[[0, -1]] == before[[0, -1]]).all()
    if n_rows:
        found = np.zeros(n_out * n_rows, dtype)
        products(out, rows, found, n_out, n_rows)
        np.testing.assert_allclose(found.reshape(n_rows, n_out).T, out[:n_out] @ rows.T, **tolerance)
