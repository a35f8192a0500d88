"""The laws of a constraint: free logits -> H_res."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mhc_lab.config.compose import residual_config
from mhc_lab.config.schema import ResidualConfig
from mhc_lab.residual import registry
from mhc_lab.residual.constraints.base import Constraint
from mhc_lab.residual.factory import layer_constraint
from mhc_lab.testing.law import DoesNotApply, Law, require, require_close

TOKENS = 60
SPREADS = (0.5, 3.0, 100.0)  # standard deviations of the logits; none is beyond +-100
NEAR = 0.1  # of I at birth: how far an entry may be


@dataclass(frozen=True)
class ConstraintCase:
    """A constraint of a variant for n streams, under some settings of `residual`."""

    variant: str
    streams: int
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join([f"n = {self.streams}", *(f"{name}={value}" for name, value in self.settings.items())])

    @property
    def config(self) -> ResidualConfig:
        return residual_config(self.variant, {"streams": self.streams, **self.settings})

    def constraint(self, **settings: Any) -> Constraint:
        """The constraint with logits to learn; settings that its variant lacks are left out."""
        config = self.config
        known = registry.variant(self.variant).accepted_fields(config)
        given = {**self.settings, **{name: value for name, value in settings.items() if name in known}}
        found = layer_constraint(residual_config(self.variant, {"streams": self.streams, **given}), 0)
        assert found is not None, self.variant
        if not found.logits:
            raise DoesNotApply("H_res is I for this n: there is nothing to learn")
        return found


def draw(constraint: Constraint, spread: float, tokens: int = TOKENS) -> Tensor:
    """[tokens, logits], fp64, of numbers that fp32 has too."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(tokens, constraint.logits, dtype=torch.float64, generator=generator) * spread
    return drawn.clamp(-100, 100).float().double()


def value_and_gradient(constraint: Constraint, logits: Tensor) -> tuple[Tensor, Tensor]:
    """H_res and the gradient of a fixed weighting of it."""
    leaf = logits.clone().requires_grad_()
    out = constraint(leaf)
    weights = torch.sin(torch.arange(out.numel(), dtype=torch.float64)).reshape(out.shape)
    (out * weights.to(out.dtype)).sum().backward()
    assert leaf.grad is not None
    return out.detach(), leaf.grad


def _shape(case: ConstraintCase) -> None:
    constraint, n = case.constraint(), case.streams
    for dtype in (torch.float32, torch.float64):
        for tokens in ((), (3,), (2, 3)):
            logits = torch.zeros(*tokens, constraint.logits, dtype=dtype)
            found = constraint(logits)
            require(list(found.shape) == [*tokens, n, n], f"{list(found.shape)} for logits {list(logits.shape)}")
            require(found.dtype == dtype, f"{found.dtype} for logits in {dtype}")


def _finite(case: ConstraintCase) -> None:
    for t_max in (1, 5, 40):
        constraint = case.constraint(t_max=t_max)
        for spread in SPREADS:
            logits = draw(constraint, spread)
            wide, wide_gradient = value_and_gradient(constraint, logits)
            narrow, narrow_gradient = value_and_gradient(constraint, logits.float())
            where = f"logits of spread {spread:g}"
            require_close(narrow, wide, f"H_res in fp32, {where}", rtol=1e-4, atol=2e-5)
            require_close(narrow_gradient, wide_gradient, f"gradient in fp32, {where}", rtol=2e-3, atol=2e-4)


def _promises(case: ConstraintCase) -> None:
    for t_max in (1, 20, 40):
        constraint = case.constraint(t_max=t_max)
        for spread in SPREADS:
            matrix = constraint(draw(constraint, spread).float()).detach().double()
            if "rows" in constraint.promises and constraint.config.convention != "v4":  # whose eps rows fall short by
                _within((matrix.sum(-1) - 1).abs().max(), 1e-6, "rows: a sum is off 1 by")
            if "columns" in constraint.promises:
                _within((matrix.sum(-2) - 1).abs().max(), 1e-6, "columns: a sum is off 1 by")
            if "non_negative" in constraint.promises:
                _within(-matrix.min(), 0.0, "non_negative: an entry is below 0 by")
            if "contraction" in constraint.promises:
                _within(torch.linalg.matrix_norm(matrix, 2).max() - 1, 2e-5, "contraction: a norm is above 1 by")


def _within(found: Tensor, bound: float, what: str) -> None:
    require(bool(found <= bound), f"{what} {float(found):.1e}")


def _learned(case: ConstraintCase) -> None:
    constraint = case.constraint()
    if case.streams == 1:
        raise DoesNotApply("one stream has nothing to mix with")
    _, gradient = value_and_gradient(constraint, draw(constraint, 1.0))
    dead = [index for index, part in enumerate(gradient.abs().amax(0)) if not part]
    require(not dead, f"logits {dead[:5]} have no gradient")


def _apart(case: ConstraintCase) -> None:
    constraint = case.constraint()
    logits = draw(constraint, 1.0, tokens=5)
    together = constraint(logits).detach()
    for index, own in enumerate(logits):
        require_close(constraint(own).detach(), together[index], "H_res of a token by itself", rtol=1e-9, atol=1e-12)


def _birth(case: ConstraintCase) -> None:
    for diagonal in (0.5, 0.95):
        constraint = case.constraint(res_diagonal=diagonal)
        birth = constraint.birth()
        require(list(birth.shape) == [constraint.logits], f"birth() has shape {list(birth.shape)}")
        if not constraint.starts_near_identity:
            raise DoesNotApply("starts_near_identity is False: it starts elsewhere on purpose")
        matrix = constraint(birth).detach()
        if case.streams > 1 and "res_diagonal" in registry.variant(case.variant).accepted_fields(case.config):
            wanted = torch.full((case.streams,), diagonal)
            require_close(matrix.diagonal(), wanted, "diagonal against residual.res_diagonal", rtol=0, atol=2e-5)
        else:
            require_close(matrix, torch.eye(case.streams), "H_res against I", rtol=0, atol=NEAR)


LAWS: tuple[Law[ConstraintCase], ...] = (
    Law("shape", "logits [..., k] give H_res [..., n, n], in fp32, and in fp64 for logits in fp64", _shape),
    Law("finite", "for logits within +-100 H_res and its gradient are finite, in fp32 as in fp64", _finite),
    Law("promises", "what `promises` says holds for every logits", _promises),
    Law("learned", "each logit moves H_res", _learned),
    Law("apart", "H_res of a token depends on the logits of that token alone", _apart),
    Law(
        "birth",
        "birth() gives k logits whose H_res is near I, or has the diagonal residual.res_diagonal where that is read; "
        "`starts_near_identity = False` says that it starts elsewhere",
        _birth,
    ),
)
