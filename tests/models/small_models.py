"""Small models with one variant or another, recomputed or not, and how their gradients compare."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhc_lab.config import compose
from mhc_lab.models.gpt import GPT

SMALL = ("model.blocks=3", "model.dim=32", "model.heads=2")
TOKENS = torch.randint(0, 256, (2, 16), generator=torch.Generator().manual_seed(0))


def build(variant: str, block: object, *extra: str) -> GPT:
    """A model whose connections have left their initial values, so that every tensor matters."""
    config = compose([f"residual={variant}", f"residual.recompute={block}", *SMALL, *extra])
    model = GPT(config.model, config.residual, 256)
    model.init_weights("0")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.stack.connections.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return model


def loss_of(model: nn.Module, tokens: Tensor = TOKENS) -> Tensor:
    return F.cross_entropy(model(tokens).float().flatten(0, 1), tokens.flatten())


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert len(found) == len(list(model.parameters()))
    return found


def assert_equal(model: GPT, other: GPT) -> None:
    """Gradients, to the last bit."""
    ours, theirs = gradients(model), gradients(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def trained(variant: str, block: object, *extra: str, autocast: bool = False) -> tuple[GPT, Tensor]:
    model = build(variant, block, *extra)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = loss_of(model)
    loss.backward()
    return model, loss.detach()
