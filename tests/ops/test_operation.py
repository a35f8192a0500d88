"""An operation called in an eager step is what its custom op is, and whoever wants to see it does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mhc_lab import ops


class Seen(TorchDispatchMode):
    """Names of the operators that were dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, _types, arguments=(), keywords=None):
        self.names.append(str(function))
        return function(*arguments, **(keywords or {}))


def inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(5, 4, 8).requires_grad_(), torch.randn(5, 4).requires_grad_()


def test_directly_as_through_the_dispatcher() -> None:
    streams, h_pre = inputs()
    direct = ops.read(streams, h_pre)
    custom = torch.ops.mhc_lab.read(streams, h_pre)
    assert torch.equal(direct, custom)
    assert "_read_autograd" in str(direct.grad_fn.next_functions)
    for one, other in zip(
        torch.autograd.grad(direct.square().sum(), [streams, h_pre]),
        torch.autograd.grad(custom.square().sum(), [streams, h_pre]),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_a_dispatch_mode_sees_forward_and_backward() -> None:
    streams, h_pre = inputs()
    with Seen() as seen:
        ops.read(streams, h_pre).sum().backward()
    assert [name for name in seen.names if "mhc_lab" in name] == [
        "mhc_lab.read.default",
        "mhc_lab.read_backward.default",
    ]


def test_fake_tensors_have_shapes_and_no_kernel() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        streams, h_pre = (mode.from_tensor(x) for x in inputs())
        assert ops.read(streams, h_pre).shape == (5, 8)


def test_without_gradients_nothing_is_kept() -> None:
    streams, h_pre = inputs()
    with torch.no_grad():
        assert ops.read(streams, h_pre).grad_fn is None
    assert ops.read(streams.detach(), h_pre.detach()).grad_fn is None


def test_function_transforms_are_refused_as_torch_refuses_them_for_custom_ops() -> None:
    streams, h_pre = (x.detach() for x in inputs())
    with pytest.raises(RuntimeError, match="functorch"):
        torch.func.grad(lambda x: ops.read(x, h_pre).square().sum())(streams)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_a_fused_operation_of_which_one_output_is_used(wanted: int) -> None:
    torch.manual_seed(0)
    n, dim, width = 2, 3, 8
    streams, output, weights = torch.randn(4, n, dim), torch.randn(4, dim), torch.rand(4, width)
    phi, alpha, bias = torch.randn(n * dim, width), torch.ones(width), torch.zeros(width)
    leaf = streams.clone().requires_grad_()
    layout = {"post_at": n, "res_at": 2 * n, "post": n, "t_max": 3}
    out = ops.write_read(leaf, output, weights, None, phi, alpha, bias, **layout)[wanted]
    custom = torch.ops.mhc_lab.write_read(leaf, output, weights, n, 2 * n, None, phi, alpha, bias, n, 0.0, 3, "eq9")[
        (0, 1, 2)[wanted]
    ]
    (one,) = torch.autograd.grad(out.square().sum(), [leaf])
    (other,) = torch.autograd.grad(custom.square().sum(), [leaf])
    assert torch.equal(one, other)
