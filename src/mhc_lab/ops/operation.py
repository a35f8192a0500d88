"""An operation as torch sees it: a custom op, or a plain autograd function where only autograd looks on.

torch dispatches a custom op in Python, and that takes about as long as a small layer's kernel. Compilation, fake
tensors, tracing and function transforms need it; an eager step does not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

_Function = Callable[..., Any]


class Operation:
    """`mhc_lab::<name>`, which computes `function` of what has passed `check`; used as the custom op would be."""

    def __init__(self, name: str, function: _Function, check: _Function) -> None:
        @functools.wraps(function)  # torch reads the op's types from it
        def checked(*arguments: Any) -> Any:
            check(*arguments)
            return function(*arguments)

        self._function = checked
        self._op = torch.library.custom_op(f"mhc_lab::{name}", checked, mutates_args=())
        self._autograd: type[torch.autograd.Function] | None = None

    def register_fake(self, fake: _Function) -> _Function:
        """What shapes come out."""
        self._op.register_fake(fake)
        return fake

    def register_autograd(self, gradients: _Function, *, setup_context: _Function) -> None:
        """How gradients go back: `torch.library.register_autograd`."""
        self._op.register_autograd(gradients, setup_context=setup_context)
        function = self._function

        def forward(*arguments: Any) -> Any:
            return function(*(x.detach() if isinstance(x, Tensor) and x.requires_grad else x for x in arguments))

        body = {
            "forward": staticmethod(forward),
            "setup_context": staticmethod(setup_context),
            "backward": staticmethod(gradients),
        }
        self._autograd = type(f"{function.__name__}_autograd", (torch.autograd.Function,), body)

    def __call__(self, *arguments: Any) -> Any:
        if torch.compiler.is_compiling():
            return self._op(*arguments)
        _refuse_forward_mode(arguments)
        if not _plain(arguments):
            return self._op(*arguments)
        if not (torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in arguments)):
            return self._function(*arguments)
        if self._autograd is None:
            return self._op(*arguments)  # says that there is no second derivative
        return self._autograd.apply(*arguments)


def operation(check: _Function) -> Callable[[_Function], Operation]:
    """Make a function the operation `mhc_lab::<name of check>`; it allocates what it returns and changes no argument.

    `check` (of `check.py`) takes the same arguments, and raises for those that it may not see.
    """
    return lambda function: Operation(check.__name__, function, check)


def _refuse_forward_mode(arguments: tuple[Any, ...]) -> None:
    """A tangent would be lost without a word: torch knows no forward derivative of a custom op, and takes it for 0."""
    tensors = [x for x in arguments if isinstance(x, Tensor)]
    dual = forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(x).tangent is not None for x in tensors)
    if dual or (torch._C._are_functorch_transforms_active() and _under_jvp(tensors)):
        raise NotImplementedError(
            "forward-mode differentiation (jvp, jacfwd, dual tensors) of an mhc_lab operation: take a backward mode, "
            "loss.backward() or torch.autograd.grad, or differentiate the `*_reference` function"
        )


def _under_jvp(tensors: list[Tensor]) -> bool:
    stack = torch._C._functorch.get_interpreter_stack() or []
    jvp = torch._C._functorch.TransformType.Jvp
    return any(level.key() == jvp for level in stack) and any(
        map(torch._C._functorch.is_functorch_wrapped_tensor, tensors)
    )


def _plain(arguments: tuple[Any, ...]) -> bool:
    """Whether these are ordinary tensors, and no mode or transform wants to see the operation."""
    if is_in_torch_dispatch_mode() or torch._C._are_functorch_transforms_active():
        return False
    return all(type(x) in (Tensor, torch.nn.Parameter) for x in arguments if isinstance(x, Tensor))
