"""Recomputation beside odd layers, changed tensors, checkpointing, other hooks and torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_models import TOKENS, assert_equal, build, gradients, loss_of, trained
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from mhc_lab.config import compose
from mhc_lab.models.stack import ResidualStack


class InPlace(nn.Module):
    """Changes its input before it uses it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.linear(hidden.mul_(2).sigmoid_())
        return out


@pytest.mark.parametrize("layer", [InPlace, nn.Identity, nn.LayerNorm])
def test_layers_that_treat_their_input_oddly(layer: Callable[[int], nn.Module]) -> None:
    found = []
    for block in ("off", "2"):
        torch.manual_seed(0)
        config = compose(["residual=mhc", f"residual.recompute={block}"]).residual
        stack = ResidualStack([layer(8) for _ in range(5)], 8, config)
        hidden = torch.randn(3, 8, requires_grad=True)
        stack(hidden * 1).square().sum().backward()
        found.append([hidden.grad, *(p.grad for p in stack.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_parameter_changed_in_between_is_an_error() -> None:
    model = build("mhc", "auto")
    loss = loss_of(model)
    with torch.no_grad():
        model.stack.connections[3].get_parameter("b_pre").add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation: b_pre of connection 3"):
        loss.backward()
    model.zero_grad()
    loss_of(model).backward()


def test_a_layers_weight_or_output_changed_in_between_is_an_error() -> None:
    model = build("mhc", "auto")
    loss = loss_of(model)
    with torch.no_grad():
        next(p for name, p in model.stack.layers[1].named_parameters() if name == "out.weight").add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    outputs: list[Tensor] = []
    model.stack.layers[1].register_forward_hook(lambda *seen: outputs.append(seen[-1]))
    loss = loss_of(model)
    with torch.no_grad():
        outputs[0].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_parameters_that_were_swapped_in_are_an_error() -> None:
    model = build("mhc", "auto")
    others = {name: nn.Parameter(p.detach() + 1) for name, p in model.named_parameters()}
    logits = torch.func.functional_call(model, others, (TOKENS,))
    with pytest.raises(RuntimeError, match=r"another tensor than in forward.*residual.recompute=off"):
        logits.sum().backward()


def test_a_connection_that_does_not_repeat_itself_is_an_error() -> None:
    model = build("mhc", "auto")
    connection, calls = model.stack.connections[1], [0]
    write_read = connection.write_read

    def wavering(following: Any, streams: Tensor, *rest: Any) -> Any:
        calls[0] += 1
        return write_read(following, streams.tanh() if calls[0] > 1 else streams, *rest)

    connection.write_read = wavering
    with pytest.raises(RuntimeError, match=r"saved \d+ tensors for backward where it had saved \d+"):
        loss_of(model).backward()


@pytest.mark.parametrize("reentrant", [False, True])
def test_it_lives_with_activation_checkpointing_within_and_around(reentrant: bool) -> None:
    expected, _ = trained("mhc", "off")
    within = build("mhc", "auto")
    for layer in within.stack.layers:
        layer.forward = lambda hidden, own=layer.forward: checkpoint(own, hidden, use_reentrant=reentrant)
    loss_of(within).backward()
    assert_equal(within, expected)
    around = build("mhc", "auto")
    own_stack = around.stack.forward
    around.stack.forward = lambda hidden, _: checkpoint(own_stack, hidden, use_reentrant=reentrant)
    loss_of(around).backward()
    assert_equal(around, expected)


def test_hooks_around_it_see_what_is_kept() -> None:
    expected, _ = trained("mhc", "off")
    model, seen = build("mhc", "auto"), []
    with save_on_cpu():
        loss = loss_of(model)
    loss.backward()
    assert_equal(model, expected)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t.shape) or t.detach(), lambda t: t):
        loss_of(model)
    assert [shape for shape in seen if shape == (2, 16, 4, 32)] == [(2, 16, 4, 32)] * 3  # the block starts


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_under_compile_nothing_is_recomputed(backend: str, recomputed: list[int]) -> None:
    torch._dynamo.reset()
    expected, _ = trained("orthogonal", "off")
    model = build("orthogonal", "auto")
    loss_of(torch.compile(model, backend=backend, fullgraph=True)).backward()
    assert recomputed == []
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, gradients(expected)[name])


def test_compiled_layers_in_an_eager_stack_are_recomputed(recomputed: list[int]) -> None:
    torch._dynamo.reset()
    expected, _ = trained("mhc", "off")
    model = build("mhc", "auto")
    for layer in model.stack.layers:
        layer.compile(backend="aot_eager")
    loss_of(model).backward()
    assert recomputed == [2]
    assert_equal(model, expected)


def test_a_layer_that_raises_leaves_no_hooks_behind() -> None:
    model = build("mhc", "auto")
    forward = model.stack.layers[2].forward
    model.stack.layers[2].forward = lambda hidden: forward(hidden[..., :3])
    with pytest.raises(RuntimeError):
        loss_of(model)
    assert torch._C._autograd._top_saved_tensors_default_hooks(False) is None
    model.stack.layers[2].forward = forward
    loss_of(model).backward()
    assert_equal(model, trained("mhc", "off")[0])
