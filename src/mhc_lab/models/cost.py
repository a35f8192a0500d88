"""Parameters, FLOPs and memory by formula; checked against the counted ones in the tests."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mhc_lab.config.schema import ModelConfig, ResidualConfig, RunConfig
from mhc_lab.models.connection_bytes import BF16, FP32, connection_bytes
from mhc_lab.residual import registry
from mhc_lab.residual.factory import layer_constraint

if TYPE_CHECKING:
    from mhc_lab.models.gpt import GPT

TRAINING_FACTOR = 3  # the backward pass costs two forward passes
INT64 = 8  # bytes


@dataclass(frozen=True)
class Cost:
    """Learned parameters, and training FLOPs a token (forward + backward; a multiply-add counts 2)."""

    parameters: int
    connection_parameters: int
    flops_per_token: int
    connection_flops_per_token: int
    connection_parameters_by_formula: int | None = None  # where a plugin's `cost` is not what was counted


@dataclass(frozen=True)
class Memory:
    """Bytes on one device that shares nothing with others, in a training step after the first.

    Kept from forward to backward: `layers` (by embedding and layers), `head` (with its norm and the loss) and
    `connections` (with the ends, the hidden states that they give to layers, and the layers' outputs). For a while in
    backward: `loss`, its gradients; `recomputed`, what the last block makes again; `passing`, the gradients that a
    connection or a layer holds at one time.
    """

    parameters: int
    gradients: int
    optimizer: int
    layers: int
    head: int
    connections: int
    loss: int
    recomputed: int
    passing: int

    @property
    def backbone(self) -> int:
        """What layers, head and loss keep for backward."""
        return self.layers + self.head

    @property
    def saved(self) -> int:
        """What is kept from forward to backward."""
        return self.backbone + self.connections

    @property
    def peak(self) -> int:
        """The most at one time: as the loss is differentiated, then the last block, or when all gradients are there."""
        last_block = self.layers + self.connections + self.recomputed + self.passing
        standing = self.parameters + self.optimizer
        return standing + max(self.saved + self.loss, last_block, self.gradients + self.passing)


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
    matrices = _block_matrices(model)
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


def counted(by_formula: Cost, model: GPT, residual: ResidualConfig) -> Cost:
    """A model's cost with its parameters as they are counted; a tied matrix counts once.

    Where the formula of a variant of ours says something else, that is a bug; a plugin's gets the counted number, and
    what its `cost` says beside it.
    """
    stack = model.stack
    parameters = sum(parameter.numel() for parameter in model.parameters())
    connections = sum(
        p.numel() for part in (stack.expand, stack.connections, stack.collapse) for p in part.parameters()
    )
    found = dataclasses.replace(by_formula, parameters=parameters, connection_parameters=connections)
    if found == by_formula:
        return found
    assert registry.plugin_sources(residual), f"{by_formula} by formula, {found} as counted"
    return dataclasses.replace(found, connection_parameters_by_formula=by_formula.connection_parameters)


def memory(config: RunConfig, vocab_size: int, *, tokens: int | None = None, device: str = "cpu") -> Memory:
    """The memory of a training step: forward, backward, AdamW with fp32 states, parameters and gradients in fp32.

    Args:
        config: model, residual (`residual.recompute` too), trainer.precision.
        vocab_size: of the model that is built.
        tokens: of one forward pass on one device, by default those of a step on one of the config's devices.
        device: "cpu" or "cuda". On a GPU RMSNorm is one operation that keeps less, and attention leaves its output as
            the next matrix wants it. Workspaces of libraries and the allocator's rounding are not in.
    """
    model = effective_model(config.model, config.residual)
    if tokens is None:
        ranks = config.trainer.devices * config.trainer.num_nodes
        tokens = config.data.batch_size * model.sequence_length // ranks
    parameters = FP32 * cost(config, vocab_size).parameters
    mixed = config.trainer.precision == "bf16-mixed"
    item = BF16 if mixed else FP32  # of what matrices multiply
    copies = BF16 if mixed else 0  # autocast's, of the matrices: they stand as long as the graph does
    layers, head = _backbone_bytes(model, config.residual, vocab_size, item, on_cpu=device == "cpu")
    connections = connection_bytes(config.residual, model.dim, 2 * model.blocks, tokens, output_item=item)
    return Memory(
        parameters=parameters,
        gradients=parameters,
        optimizer=2 * parameters,
        layers=layers * tokens + copies * model.blocks * _block_matrices(model),
        head=head * tokens + copies * vocab_size * model.dim,
        connections=connections.kept,
        loss=2 * FP32 * vocab_size * tokens,  # of log-probabilities and of logits
        recomputed=connections.again,
        passing=_passing_bytes(model, config.residual, item) * tokens + FP32 * vocab_size * model.dim,
    )


def _backbone_bytes(
    model: ModelConfig, residual: ResidualConfig, vocab_size: int, item: int, *, on_cpu: bool
) -> tuple[int, int]:
    """What embedding and layers, and what head and loss keep for backward, for a token."""
    dim, width = model.dim, ffn_width(model)
    # A norm keeps 1 / rms, on the CPU its input times that, and the matrix behind it its output.
    norm = FP32 + item * dim + (FP32 * dim if on_cpu else 0)
    # And its input: a hidden state that counts as the connection's, unless it had to be cast or is the stream itself.
    own = residual.stream_dtype == "bf16" or registry.variant(residual.variant).plain
    hidden = FP32 * dim if own else 0
    # q and k rotated, q k v, their mix, which the CPU turns before the matrix behind it; the sums of exponentials.
    attention = item * dim * (7 if on_cpu else 6) + FP32 * model.heads
    # gate and value, silu(gate), their product; or up, gelu(up).
    ffn = item * width * (4 if model.ffn == "swiglu" else 2)
    layers = model.blocks * (2 * (norm + hidden) + attention + ffn) + INT64  # tokens
    return layers, FP32 * dim + norm + FP32 * vocab_size + INT64  # log-probabilities, targets


def _passing_bytes(model: ModelConfig, residual: ResidualConfig, item: int) -> int:
    """The gradients of the streams on both sides of a write and of F; or of the streams, F and the widest tensor."""
    dim, n = model.dim, registry.stream_count(residual)
    stream = dim * (BF16 if residual.stream_dtype == "bf16" else FP32)
    return max((2 * n + 1) * stream, (n + 1) * stream + item * ffn_width(model))


def _block_matrices(model: ModelConfig) -> int:
    """Parameters in a block's matrices."""
    return 4 * model.dim**2 + _ffn_matrices(model) * model.dim * ffn_width(model)


def _ffn_matrices(model: ModelConfig) -> int:
    return 3 if model.ffn == "swiglu" else 2
