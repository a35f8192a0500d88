"""A law: what must hold of a design, in words, and how it is tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor

Subject = TypeVar("Subject")
Status = Literal["holds", "broken", "does not apply"]


class Broken(AssertionError):
    """A law does not hold: what was found."""


class DoesNotApply(Exception):
    """A law says nothing of this design: why."""


@dataclass(frozen=True)
class Law(Generic[Subject]):
    """`rule`: what must hold, in a sentence that a plugin's author can act on.

    `check` raises Broken where it does not hold, DoesNotApply where it says nothing.
    """

    name: str
    rule: str
    check: Callable[[Subject], None]

    def of(self, subject: Subject) -> Finding:
        """Try it. What the design itself raises is a finding too."""
        try:
            self.check(subject)
        except DoesNotApply as reason:
            return Finding(self.name, self.rule, str(subject), "does not apply", str(reason))
        except Broken as found:
            return Finding(self.name, self.rule, str(subject), "broken", str(found))
        except Exception as error:
            first = next(iter(str(error).strip().splitlines()), "")
            return Finding(self.name, self.rule, str(subject), "broken", f"{type(error).__name__}: {first}"[:300])
        return Finding(self.name, self.rule, str(subject), "holds", "")


@dataclass(frozen=True)
class Finding:
    """What became of one law: `said` is why it does not apply, or what was found instead."""

    law: str
    rule: str
    subject: str
    status: Status
    said: str


def require(holds: bool | Tensor, found: str) -> None:
    """Broken, with what was found, unless it holds."""
    if not holds:
        raise Broken(found)


def require_close(found: Tensor, wanted: Tensor, what: str, *, rtol: float, atol: float) -> None:
    """Broken unless two tensors are close; a value that is not finite is close to none."""
    require(found.shape == wanted.shape, f"{what}: shape {list(found.shape)}, wanted {list(wanted.shape)}")
    found, wanted = found.detach().double(), wanted.detach().double()
    require(torch.isfinite(found).all(), f"{what}: not finite")
    off = ((found - wanted).abs() - rtol * wanted.abs()).max() if found.numel() else torch.zeros(())
    require(bool(off <= atol), f"{what}: off by {float((found - wanted).abs().max()) if found.numel() else 0.0:.1e}")
