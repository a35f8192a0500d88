"""The fused Triton kernels of write_read against fp64 autograd: values and every gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from mhc_lab.ops.sinkhorn.reference import sinkhorn_reference
from mhc_lab.ops.write_read import gpu, gpu_backward, gpu_tiles
from mhc_lab.ops.write_read.gpu_tiles import Block

pytestmark = pytest.mark.usefixtures("poisoned_memory")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Relative to the largest entry: of streams in their dtype, and of coefficients (bf16: 16 bits of phi count; fp16: a
# GPU multiplies as tf32, 11 bits, where the interpreter is exact).
STREAMS = {torch.float32: 3e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
NUMBERS = {torch.float32: 1e-5, torch.bfloat16: 2e-4, torch.float16: 1e-3 if DEVICE == "cuda" else 1e-4}
READ_EPS = 1e-6


@dataclass(frozen=True)
class Case:
    """One layer and the next. mixing: where H_res lies ("packed", "separate", "identity"); rest: columns of logits."""

    tokens: int = 5
    n: int = 4
    dim: int = 20
    dtype: torch.dtype = torch.float32
    mixing: str = "packed"
    t_max: int = 5
    convention: str = "eq9"
    post: bool = True
    rest: int | None = None
    output_dtype: torch.dtype | None = None
    std: float = 1.0
    config: Block | None = None

    @property
    def width(self) -> int:
        return self.n * (2 if self.post else 1) + (self.n**2 if self.rest is None else self.rest)


def draw(case: Case) -> dict[str, Tensor | None]:
    generator = torch.Generator().manual_seed(case.tokens + 10 * case.n + case.dim)

    def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=generator).to(DEVICE, dtype)

    tokens, n, dim = case.tokens, case.n, case.dim
    m = case.width
    return {
        "streams": normal(tokens, n, dim, dtype=case.dtype),
        "output": normal(tokens, dim, dtype=case.output_dtype or case.dtype),
        "weights": normal(tokens, 2 * n + (n * n if case.mixing == "packed" else 0)),
        "h_res": normal(tokens, n, n) if case.mixing == "separate" else None,
        "phi": normal(n * dim, m) * (n * dim) ** -0.5,
        "alpha": normal(m) * case.std,
        "bias": normal(m) * case.std,
        "grad_written": normal(tokens, n, dim, dtype=case.dtype),
        "grad_hidden": normal(tokens, dim, dtype=case.dtype),
        "grad_values": normal(tokens, m),
    }


def expected(case: Case, drawn: dict[str, Tensor | None], rounded: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Written, hidden, values; gradients by streams, output, weights, h_res where there is one, phi, alpha, bias.

    The next layer gets the streams as the kernel rounded them (the interpreter rounds bf16 towards zero).
    """
    n, names = case.n, ["streams", "output", "weights", "h_res", "phi", "alpha", "bias"]
    leaves = {name: drawn[name].double().requires_grad_() for name in names if drawn[name] is not None}
    weights, h_post = leaves["weights"], leaves["weights"][:, n : 2 * n]
    mixed = leaves["streams"]
    if case.mixing != "identity":
        h_res = leaves["h_res"] if case.mixing == "separate" else weights[:, 2 * n :].reshape(-1, n, n)
        mixed = torch.einsum("tij,tjc->tic", h_res, mixed)
    written = mixed + h_post[:, :, None] * leaves["output"][:, None]
    seen = written + (rounded.double() - written).detach()
    flat = seen.flatten(1)
    normed = flat * torch.rsqrt(flat.square().mean(1, keepdim=True) + 1e-20)
    raw = leaves["alpha"] * (normed @ leaves["phi"]) + leaves["bias"]
    edge = 2 * n if case.post else n
    res = raw[:, edge:]
    if case.t_max:
        res = sinkhorn_reference(res.reshape(-1, n, n), case.t_max, case.convention).flatten(1)
    values = torch.cat([torch.sigmoid(raw[:, :n]) + READ_EPS, 2 * torch.sigmoid(raw[:, n:edge]), res], 1)
    hidden = (values[:, :n, None] * seen).sum(1)
    out = [written, hidden, values]
    cotangents = [drawn[name].double() for name in ("grad_written", "grad_hidden", "grad_values")]
    gradients = torch.autograd.grad(out, list(leaves.values()), cotangents)
    return [x.detach() for x in out], list(gradients)


def run(case: Case, drawn: dict[str, Tensor | None]) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    post, res_at = case.n if case.post else 0, 2 * case.n if case.mixing == "packed" else -1
    layer = (drawn["streams"], drawn["output"], drawn["weights"], case.n, res_at, drawn["h_res"])
    following = (drawn["phi"], drawn["alpha"], drawn["bias"])
    out = gpu.forward(*layer, *following, post, READ_EPS, case.t_max, case.convention, *_config(case))
    written, _, values, projected, inverse_rms = out
    grads = (drawn["grad_written"], drawn["grad_hidden"], drawn["grad_values"])
    saved = (written, values, projected, inverse_rms)
    gradients = gpu.backward(*grads, *layer, *following, *saved, post, case.t_max, case.convention, *_config(case))
    assert (gradients[3] is None) == (drawn["h_res"] is None)
    return out, [x for x in gradients if x is not None]


def _config(case: Case) -> tuple[Block, ...]:
    return () if case.config is None else (case.config,)


def close(actual: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert actual.shape == wanted.shape
    assert torch.isfinite(actual).all()
    bound = tolerance * max(1.0, wanted.abs().max().item()) if wanted.numel() else 0.0
    torch.testing.assert_close(actual.double(), wanted, rtol=0, atol=bound)


def check(case: Case) -> None:
    drawn = draw(case)
    out, actual = run(case, drawn)
    values, gradients = expected(case, drawn, out[0])
    assert out[0].dtype == out[1].dtype == actual[0].dtype == case.dtype
    assert actual[1].dtype == drawn["output"].dtype
    for found, wanted in zip(out[:2], values[:2], strict=True):
        close(found, wanted, STREAMS[case.dtype])
    close(out[2], values[2], NUMBERS[case.dtype])
    close(actual[0], gradients[0], STREAMS[case.dtype])
    close(actual[1], gradients[1], max(STREAMS[case.dtype], STREAMS[actual[1].dtype]))
    for found, wanted in zip(actual[2:], gradients[2:], strict=True):
        close(found, wanted, 10 * NUMBERS[case.dtype])


@pytest.mark.parametrize("dtype", STREAMS, ids=str)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_fused(n: int, dtype: torch.dtype) -> None:
    check(Case(n=n, dtype=dtype))


@pytest.mark.parametrize("dtype", STREAMS, ids=str)
def test_blocks_of_tokens_and_channels(dtype: torch.dtype) -> None:
    check(Case(tokens=19, dim=83, dtype=dtype))
    check(Case(tokens=19, dim=83, dtype=dtype, config=Block(4, 16)))


@pytest.mark.parametrize("mixing", ["separate", "identity"])
@pytest.mark.parametrize("n", [1, 4])
def test_where_the_mixing_lies(n: int, mixing: str) -> None:
    check(Case(n=n, mixing=mixing))


@pytest.mark.parametrize("convention", ["eq9", "v4"])
@pytest.mark.parametrize("t_max", [1, 5, 20])
@pytest.mark.parametrize("std", [1.0, 8.0])
def test_sinkhorn(std: float, t_max: int, convention: str) -> None:
    check(Case(tokens=3, dim=8, t_max=t_max, convention=convention, std=std))


@pytest.mark.parametrize("rest", [0, 6, 24])
@pytest.mark.parametrize("post", [True, False])
def test_logits_of_other_constraints(post: bool, rest: int) -> None:
    check(Case(t_max=0, rest=rest, post=post, mixing="separate"))


@pytest.mark.parametrize("n", [5, 8, 16])
@pytest.mark.parametrize("mixing", ["packed", "separate", "identity"])
def test_more_streams_run_in_parts(n: int, mixing: str) -> None:
    case = Case(tokens=2, n=n, dim=12, mixing=mixing)
    assert not gpu_tiles.fused(torch.empty(1, n, 12), torch.empty(12 * n, case.width))
    check(case)


def test_more_columns_run_in_parts() -> None:
    check(Case(tokens=2, n=3, dim=8, t_max=0, rest=40))


@pytest.mark.parametrize("tokens", [0, 1])
def test_few_tokens(tokens: int) -> None:
    case = Case(tokens=tokens)
    check(case)
    check(replace(case, n=5, dim=8))


@pytest.mark.parametrize("dim", [1, 7])
def test_few_channels(dim: int) -> None:
    check(Case(dim=dim))


def test_the_output_may_have_another_dtype_than_the_streams() -> None:
    check(Case(output_dtype=torch.bfloat16))
    check(Case(dtype=torch.bfloat16, output_dtype=torch.float32))


def test_the_gradient_of_phi_is_a_sum_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_backward, "_TOKENS", 16)
    case = Case(tokens=75, n=2, dim=8)
    check(case)
    drawn = draw(case)
    first, second = run(case, drawn), run(case, drawn)
    for a, b in zip([*first[0], *first[1]], [*second[0], *second[1]], strict=True):
        assert torch.equal(a, b)


def test_fp64_is_refused_rather_than_rounded() -> None:
    case = Case(n=2, dim=4)
    drawn = {name: None if x is None else x.double() for name, x in draw(case).items()}
    with pytest.raises(TypeError, match="fp32 streams, not"):
        run(case, drawn)
