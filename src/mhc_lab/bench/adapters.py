"""One implementation of one operation, in the layouts and conventions that it wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mhc_lab.bench.cases import Problem, Shape, Tensors, split_packed

MAPPINGS = ("pre", "post", "res")


class Absent(Exception):
    """This implementation cannot be had here, and why."""


def same(tensors: Tensors, shape: Shape) -> Tensors:  # noqa: ARG001
    """No translation."""
    return tensors


@dataclass(frozen=True)
class Adapter:
    """How an implementation is called.

    Attributes:
        run: its own inputs -> its own outputs, by name. The only part that is timed.
        encode: our inputs, or gradients of our outputs -> its own. Names that are not there are not translated.
        decode: its outputs, or gradients of its inputs -> ours.
        backward: it has gradients.
        refuses: why it cannot do a shape, or nothing.
        transposed: its Sinkhorn ends with columns: it is held against the equations on transposed matrices.
    """

    run: Callable[[Tensors, Shape], Tensors]
    encode: Callable[[Tensors, Shape], Tensors] = same
    decode: Callable[[Tensors, Shape], Tensors] = same
    refuses: Callable[[Shape], str] = lambda _: ""
    backward: bool = True
    transposed: bool = False


class Prepared:
    """An adapter with its inputs in place: `forward`, `backward` and `both` are what is timed."""

    def __init__(self, adapter: Adapter, problem: Problem) -> None:
        self.adapter = adapter
        self.problem = problem
        self.shape = problem.shape
        own = adapter.encode(problem.inputs, self.shape)
        self.leaves = {name: value.detach().requires_grad_(adapter.backward) for name, value in own.items()}
        self.cotangents = adapter.encode(problem.cotangents, self.shape)
        self.kept: Tensors | None = None

    def forward(self) -> Tensors:
        return self.adapter.run(self.leaves, self.shape)

    def gradients(self, outputs: Tensors) -> Tensors:
        """Of the outputs, times the cotangents, by the names of the implementation's inputs."""
        names = list(outputs)
        found = torch.autograd.grad(
            [outputs[name] for name in names],
            list(self.leaves.values()),
            [self.cotangents[name] for name in names],
            retain_graph=True,
        )
        return dict(zip(self.leaves, found, strict=True))

    def keep(self) -> None:
        """Hold one forward pass, for `backward` to start from."""
        self.kept = self.forward()

    def backward(self) -> Tensors:
        assert self.kept is not None
        return self.gradients(self.kept)

    def both(self) -> Tensors:
        return self.gradients(self.forward())

    def checked(self) -> tuple[Tensors, Tensors]:
        """Outputs and gradients in our terms; to be called once before any other pass."""
        outputs = self.forward()
        self.cotangents = {name: self.cotangents[name].to(value.dtype) for name, value in outputs.items()}
        gradients = self.gradients(outputs) if self.adapter.backward else {}
        detached = {name: value.detach() for name, value in outputs.items()}
        return self.adapter.decode(detached, self.shape), self.adapter.decode(gradients, self.shape)


def pack(tensors: Tensors, shape: Shape) -> Tensors:  # noqa: ARG001
    """pre [T, n], post [T, n] and res [T, n, n] -> values [T, m]; other tensors as they are."""
    if "res" not in tensors:
        return tensors
    rest = {name: value for name, value in tensors.items() if name not in MAPPINGS}
    return {**rest, "values": torch.cat([tensors["pre"], tensors["post"], tensors["res"].flatten(-2)], dim=-1)}


def unpack(tensors: Tensors, shape: Shape) -> Tensors:
    """values [T, m] -> pre, post and res; other tensors as they are."""
    if "values" not in tensors:
        return tensors
    rest = {name: value for name, value in tensors.items() if name != "values"}
    return {**rest, **dict(zip(MAPPINGS, split_packed(tensors["values"], shape), strict=True))}


def transpose_mixing(tensors: Tensors, shape: Shape) -> Tensors:
    """To or from those who keep H_res^T: the matrices, their logits, and phi's and bias' columns for them."""
    ours = dict(tensors)
    n = shape.streams
    for name in {"h_res", "res", "logits"} & ours.keys():
        ours[name] = ours[name].mT.contiguous()
    for name in {"phi", "bias"} & ours.keys():
        rest, res = ours[name].split([2 * n, n * n], dim=-1)
        ours[name] = torch.cat([rest, res.unflatten(-1, (n, n)).mT.flatten(-2)], dim=-1)
    return ours
