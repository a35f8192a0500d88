"""The backbone: cost by formula against counted, common random numbers, causality."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mhc_lab.config import compose
from mhc_lab.models.cost import cost
from mhc_lab.models.gpt import GPT
from mhc_lab.residual import registry

CASES = {
    **{name: [f"residual={name}"] for name in registry.variants()},
    "hc at n = 3, static write": ["residual=hc", "residual.streams=3", "residual.h_post=static"],
    "mhc with learned ends": ["residual=mhc", "residual.expand=scaled", "residual.collapse=read"],
    "mhc at n = 1": ["residual=mhc", "residual.streams=1"],
    "mhc, constraints by layer": ["residual=mhc", "residual.constraints=[orthogonal,row_stochastic,unconstrained]"],
    "gelu, tied": ["residual=mhc", "model.ffn=gelu", "model.tie_embeddings=true"],
    "small": ["residual=identity", "model=small"],
}


def build(overrides: list[str], key: str = "0") -> GPT:
    config = compose(overrides)
    model = GPT(config.model, config.residual, config.model.vocab_size or 256)
    model.init_weights(key)
    return model


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES)
def test_parameters_by_formula_are_the_counted_ones(overrides: list[str]) -> None:
    config = compose(overrides)
    vocab = config.model.vocab_size or 256
    with torch.device("meta" if config.model.dim > 100 else "cpu"):
        model = GPT(config.model, config.residual, vocab)
    found = cost(config, vocab)
    assert sum(p.numel() for p in model.parameters()) == found.parameters
    ends_and_connections = [*model.stack.connections, model.stack.expand, model.stack.collapse]
    assert sum(p.numel() for m in ends_and_connections for p in m.parameters()) == found.connection_parameters


def test_flops_by_formula_are_the_counted_ones() -> None:
    config = compose(["residual=identity"])
    model, length = build(["residual=identity"]), config.model.sequence_length
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, length, dtype=torch.long))
    attention = 2 * 2 * length * config.model.dim * config.model.blocks  # q k^T and the mix, not halved by causality
    counted = sum(v for k, v in counter.get_flop_counts()["Global"].items() if "attention" not in str(k)) / length
    found = cost(config, 256)
    backbone = (found.flops_per_token - found.connection_flops_per_token) / 3
    assert backbone == pytest.approx(counted + attention / 2)


def test_the_wide_baseline_has_mhcs_parameter_count() -> None:
    for extra in ([], ["residual.streams=2"], ["model=tiny"]):
        wide, mhc = (cost(compose([f"residual={name}", *extra]), 256).parameters for name in ("identity_wide", "mhc"))
        assert wide == pytest.approx(mhc, rel=0.005)


@pytest.mark.parametrize("name", registry.variants())
def test_variants_share_every_backbone_weight(name: str) -> None:
    if registry.variant(name).matches:
        pytest.skip("a wider FFN cannot share its weights")
    baseline, other = build(["residual=identity"]), build([f"residual={name}"])
    weights = dict(other.named_parameters())
    for label, parameter in baseline.named_parameters():
        assert torch.equal(parameter, weights[label]), label


def test_toggle_cells_share_their_mappings_too() -> None:
    full, part = build(["residual=mhc"]), build(["residual=mhc", "residual.h_pre=fixed"])
    assert torch.equal(
        full.get_parameter("stack.connections.3.phi_res"), part.get_parameter("stack.connections.3.phi_res")
    )


def test_another_key_is_another_model() -> None:
    first, second = build(["residual=mhc"], "0"), build(["residual=mhc"], "1")
    assert not torch.equal(first.embedding.weight, second.embedding.weight)


@pytest.mark.parametrize("name", registry.variants())
def test_no_variant_sees_the_future(name: str) -> None:
    model = build([f"residual={name}"])
    tokens = torch.randint(0, 256, (1, 16))
    changed = tokens.clone()
    changed[0, 9:] = 0
    with torch.no_grad():
        torch.testing.assert_close(model(tokens)[0, :9], model(changed)[0, :9])


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", registry.variants())
def test_bf16_streams_train(name: str, autocast: bool) -> None:
    model, tokens = build([f"residual={name}", "residual.stream_dtype=bf16"]), torch.randint(0, 256, (2, 16))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(tokens)
    logits.float().square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    exact = build([f"residual={name}"])(tokens)
    torch.testing.assert_close(logits.float(), exact, rtol=0, atol=0.05)


@pytest.mark.parametrize("name", ["identity", "hc", "mhc"])
def test_a_trace_has_every_layer_and_changes_nothing(name: str) -> None:
    model, tokens, trace = build([f"residual={name}"]), torch.randint(0, 256, (2, 16)), []
    with torch.no_grad():
        assert torch.equal(model(tokens, trace), model(tokens))
    n = model.stack.connections[0].streams
    assert len(trace) == len(model.stack.layers) == 8
    assert all(layer.h_res.shape == (2, 16, n, n) and layer.h_pre.shape == (2, 16, n) for layer in trace)
    assert (trace[-1].spread > 1e-3) == (n > 1)
