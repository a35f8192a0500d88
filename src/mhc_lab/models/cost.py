"""Parameters and FLOPs by formula; checked against the counted ones in the tests."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from mhc_lab.config.schema import ModelConfig, ResidualConfig, RunConfig
from mhc_lab.residual import registry
from mhc_lab.residual.factory import layer_constraint

TRAINING_FACTOR = 3  # the backward pass costs two forward passes


@dataclass(frozen=True)
class Cost:
    """Learned parameters, and training FLOPs a token (forward + backward; a multiply-add counts 2)."""

    parameters: int
    connection_parameters: int
    flops_per_token: int
    connection_flops_per_token: int


def ffn_width(model: ModelConfig) -> int:
    """Hidden width of the FFN: as given, else 8/3 C rounded up to a multiple of 8 (SwiGLU) or 4 C (GELU)."""
    if model.ffn_width is not None:
        return model.ffn_width
    return -(-8 * model.dim // 24) * 8 if model.ffn == "swiglu" else 4 * model.dim


def effective_model(model: ModelConfig, residual: ResidualConfig) -> ModelConfig:
    """The backbone as it is built: widened where the variant matches another one's parameter count."""
    matched = registry.variant(residual.variant).matches
    if not matched:
        return model
    entry = registry.variant(matched)
    twin = ResidualConfig(variant=matched, streams=residual.streams, **entry.defaults)
    extra, _ = connection_cost(model, twin)
    a_unit = model.blocks * _ffn_matrices(model) * model.dim  # what one more hidden unit in every FFN costs
    return dataclasses.replace(model, ffn_width=ffn_width(model) + round(extra / a_unit))


def connection_cost(model: ModelConfig, residual: ResidualConfig) -> tuple[int, int]:
    """Parameters and forward FLOPs a token of all connections and of the ends."""
    cls = registry.resolve(registry.variant(residual.variant).target)
    costs = [cls.cost(model.dim, residual, layer_constraint(residual, layer)) for layer in range(2 * model.blocks)]
    parameters = sum(c.parameters for c in costs)
    flops = sum(c.flops for c in costs)
    n = registry.stream_count(residual)
    if residual.expand == "scaled":
        parameters += n
        flops += n * model.dim
    if residual.collapse == "read":
        parameters += n * model.dim * n + n + 1
        flops += 2 * n * model.dim * (n + 1)
    else:
        flops += n * model.dim
    return parameters, flops


def cost(config: RunConfig, vocab_size: int) -> Cost:
    """What a model costs, and how much of it is the connections."""
    model = effective_model(config.model, config.residual)
    dim = model.dim
    matrices = 4 * dim * dim + _ffn_matrices(model) * dim * ffn_width(model)  # a block's matrix parameters
    layers_flops = 2 * matrices + 2 * 2 * model.sequence_length * dim / 2  # causal: half of q k^T and of the mix
    parameters = model.blocks * (matrices + 2 * dim) + dim + vocab_size * dim * (1 if model.tie_embeddings else 2)
    flops = model.blocks * layers_flops + 2 * vocab_size * dim
    connection_parameters, connection_flops = connection_cost(config.model, config.residual)
    return Cost(
        parameters + connection_parameters,
        connection_parameters,
        round(TRAINING_FACTOR * (flops + connection_flops)),
        TRAINING_FACTOR * connection_flops,
    )


def _ffn_matrices(model: ModelConfig) -> int:
    return 3 if model.ffn == "swiglu" else 2
