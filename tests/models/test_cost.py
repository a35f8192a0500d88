"""Memory by formula against bytes counted: what is saved for backward, and the peak of a step."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mhc_lab.config import RunConfig, compose
from mhc_lab.models.cost import memory
from mhc_lab.models.gpt import GPT
from mhc_lab.models.saved_bytes import LiveBytes, measured_saved_bytes
from mhc_lab.training.optim import build_optimizer

SAVED = 0.02  # relative; the formula leaves out a few scalars a layer
PEAK = 0.03
SMALL = ("model.blocks=3", "model.sequence_length=64", "data.batch_size=4")

CASES: dict[str, tuple[str, ...]] = {
    "identity": ("residual=identity",),
    "identity_wide": ("residual=identity_wide",),
    "identity, bf16 stream": ("residual=identity", "residual.stream_dtype=bf16"),
    "mhc": ("residual=mhc",),
    "mhc, n = 1": ("residual=mhc", "residual.streams=1"),
    "mhc, n = 2, C = 96": ("residual=mhc", "residual.streams=2", "model.dim=96"),
    "mhc, n = 8, t_max = 5": ("residual=mhc", "residual.streams=8", "residual.t_max=5"),
    "mhc, C = 128, gelu, deeper": ("residual=mhc", "model.dim=128", "model.ffn=gelu", "model.blocks=5"),
    "mhc, one block": ("residual=mhc", "model.blocks=1"),
    "mhc, bf16 streams": ("residual=mhc", "residual.stream_dtype=bf16"),
    "mhc, autocast": ("residual=mhc", "trainer.precision=bf16-mixed"),
    "mhc, all bf16": ("residual=mhc", "residual.stream_dtype=bf16", "trainer.precision=bf16-mixed"),
    "mhc, H_pre fixed": ("residual=mhc", "residual.h_pre=fixed"),
    "mhc, writes fixed": ("residual=mhc", "residual.h_post=fixed", "residual.h_res=fixed"),
    "mhc, nothing learned": ("residual=mhc", *(f"residual.{name}=fixed" for name in ("h_pre", "h_post", "h_res"))),
    "mhc, static": ("residual=mhc", *(f"residual.{name}=static" for name in ("h_pre", "h_post", "h_res"))),
    "mhc, log": ("residual=mhc", "residual.sinkhorn=log", "residual.t_max=5"),
    "mhc, overrelaxed": ("residual=mhc", "residual.sinkhorn=overrelaxed", "residual.t_max=5"),
    "mhc, newton": ("residual=mhc", "residual.sinkhorn=newton", "residual.t_max=3"),
    "mhc, warm": ("residual=mhc", "residual.sinkhorn=warm"),
    "mhc, permutations": ("residual=mhc", "residual.sinkhorn=permutations"),
    "mhc, kronecker": ("residual=mhc", "residual.sinkhorn=kronecker"),
    "mhc, learned ends": ("residual=mhc", "residual.expand=scaled", "residual.collapse=read"),
    "mhc, large vocabulary": ("residual=mhc", "model.vocab_size=4096", "model.tie_embeddings=true"),
    "constraints by layer": ("residual=mhc", "residual.constraints=[orthogonal,row_stochastic,unconstrained]"),
    "identity_hc": ("residual=identity_hc",),
    "orthogonal": ("residual=orthogonal",),
    "row_stochastic": ("residual=row_stochastic", "residual.streams=3"),
    "column_stochastic": ("residual=column_stochastic",),
    "hc": ("residual=hc",),
    "hc, n = 2, H_res alone": ("residual=hc", "residual.streams=2", "residual.h_pre=fixed", "residual.h_post=fixed"),
    "hc, static": ("residual=hc", *(f"residual.{name}=static" for name in ("h_pre", "h_post", "h_res"))),
}


class Trained:
    """A model of a config, and its loss on a batch of the config's size."""

    def __init__(self, config: RunConfig) -> None:
        self.vocab_size = config.model.vocab_size or 256
        self.model = GPT(config.model, config.residual, self.vocab_size)
        self.model.init_weights("0")
        self.optimizer = build_optimizer(self.model, config.optim)
        self.mixed = config.trainer.precision == "bf16-mixed"
        self.tokens = torch.randint(0, self.vocab_size, (config.data.batch_size, config.model.sequence_length))

    def loss(self) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
            logits = self.model(self.tokens)
        return F.cross_entropy(logits.float().flatten(0, 1), self.tokens.flatten())

    def step(self) -> None:
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


PLAIN = ("identity", "identity_wide", "identity, bf16 stream")  # they have nothing to recompute
BLOCKS = [
    *((case, block) for case in CASES for block in ("off", "auto") if block == "off" or case not in PLAIN),
    *((case, block) for case in ("mhc", "mhc, n = 8, t_max = 5", "mhc, all bf16", "hc") for block in ("1", "4")),
]


@pytest.mark.parametrize(("case", "block"), BLOCKS)
def test_saved_bytes_by_formula_are_the_counted_ones(case: str, block: str) -> None:
    config = compose([*SMALL, *CASES[case], f"residual.recompute={block}"])
    trained = Trained(config)
    found = memory(config, trained.vocab_size)
    assert found.saved == pytest.approx(measured_saved_bytes(trained.loss, trained.model), rel=SAVED)
    assert (found.recomputed > 0) == (block != "off")


@pytest.mark.parametrize("block", ["off", "auto"])
@pytest.mark.parametrize(
    "case", ["identity", "mhc", "mhc, n = 8, t_max = 5", "mhc, all bf16", "mhc, overrelaxed", "orthogonal", "hc"]
)
def test_the_peak_by_formula_is_the_counted_one(case: str, block: str) -> None:
    """What operations allocate for themselves is in neither."""
    config = compose([*SMALL, *CASES[case], f"residual.recompute={block}"])
    trained = Trained(config)
    found = memory(config, trained.vocab_size)
    trained.step()  # the optimizer's states are there from now on
    with LiveBytes(trained.model) as live:
        trained.step()
    standing = found.parameters + found.optimizer
    assert found.peak - standing == pytest.approx(live.peak, rel=PEAK)


def test_a_model_of_few_tokens_peaks_with_its_gradients() -> None:
    config = compose(["residual=mhc", "model.dim=128", "model.sequence_length=4", "data.batch_size=1"])
    trained = Trained(config)
    found = memory(config, trained.vocab_size)
    trained.step()
    with LiveBytes(trained.model) as live:
        trained.step()
    assert live.peak == pytest.approx(found.gradients, rel=0.1)
    assert found.peak == pytest.approx(found.parameters + found.optimizer + live.peak, rel=PEAK)


def test_parameters_gradients_and_states_are_those_of_adamw() -> None:
    config = compose(["residual=mhc", *SMALL])
    trained = Trained(config)
    found = memory(config, trained.vocab_size)
    assert found.parameters == sum(4 * p.numel() for p in trained.model.parameters())
    trained.loss().backward()
    assert found.gradients == sum(4 * p.grad.numel() for p in trained.model.parameters() if p.grad is not None)
    trained.optimizer.step()
    states = [t for state in trained.optimizer.state.values() for t in state.values() if t.numel() > 1]
    assert found.optimizer == pytest.approx(sum(4 * t.numel() for t in states), rel=1e-2)  # alphas are single numbers


def test_recomputation_saves_what_the_paper_says() -> None:
    """Table 3 and Eq. 20: n C where a block starts and C a layer stay of (n + 2) C a layer, but for coefficients."""
    config = compose(["residual=mhc", "model.blocks=30", "model.dim=2560", "model.heads=32"])
    tokens, width = 4096, 4 * 2560
    off = memory(config, 256, tokens=tokens).connections
    config.residual.recompute = "auto"  # round(6.3) of 60 layers
    kept = memory(config, 256, tokens=tokens)
    streams = 4 * width * tokens
    assert off == pytest.approx((60 * 6 - 3) * streams / 4, rel=0.03)
    assert kept.connections == pytest.approx((10 * 4 - 3 + 60) * streams / 4, rel=0.03)
    assert kept.recomputed == pytest.approx(5 * 5 * streams / 4, rel=0.03)  # the last block reads five times


def test_tokens_are_those_of_one_device() -> None:
    config = compose(["residual=mhc", "trainer=ddp", "trainer.devices=2", *SMALL])
    assert memory(config, 256) == memory(config, 256, tokens=2 * 64)


def test_a_gpu_keeps_less_of_norms_and_attention() -> None:
    config = compose(["residual=mhc", *SMALL])
    cpu, gpu = memory(config, 256), memory(config, 256, device="cuda")
    dim, tokens = config.model.dim, 4 * 64
    norms, mixes = 2 * config.model.blocks + 1, config.model.blocks
    assert cpu.saved - gpu.saved == 4 * dim * tokens * (norms + mixes)
