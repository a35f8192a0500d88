"""Alive at birth (DESIGN, Fair comparisons): H_res gets a gradient, and the streams separate."""

import itertools
from typing import get_args

import pytest

from mhc_lab.config.schema import Sinkhorn
from mhc_lab.data.module import LabData
from mhc_lab.residual import registry
from mhc_lab.training.callbacks.probes import largest_spread, trace
from mhc_lab.training.module import build_model, clip_gradients, next_token_loss
from mhc_lab.training.optim import build_optimizer

MIXING = [name for name in registry.variants() if "h_res" in registry.variant(name).toggles]


def largest_gradient(model, leaf):
    found = [p.grad.abs().max() for name, p in model.named_parameters() if name.endswith(leaf)]
    assert found
    return float(max(found))


ALGORITHMS = [f"mhc residual.sinkhorn={name}" for name in get_args(Sinkhorn) if name != "plain"]


@pytest.mark.parametrize("variant", [*MIXING, "mhc residual.convention=v4", "mhc residual.h_res=static", *ALGORITHMS])
def test_variants_that_mix_are_alive_at_birth(tiny, variant):
    config = tiny(*f"residual={variant}".split())
    data = LabData(config)
    window = next(iter(data.val_dataloader()))[0][:1]
    model = build_model(config, data.vocab_size)
    optimizer = build_optimizer(model, config.optim)
    for step, batch in enumerate(itertools.islice(data.train_dataloader(), 5)):
        next_token_loss(model, batch).backward()
        if step == 0:
            assert largest_gradient(model, ".b_res") > 1e-3 * largest_gradient(model, ".b_post")
        clip_gradients(model, config.optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    assert largest_spread(trace(model, window)) > 1e-3
