"""Initial values as a function of (key, qualified name): common random numbers across variants."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

Table = Callable[[str, Tensor, torch.Generator], None]


def generator(key: str, name: str) -> torch.Generator:
    """A generator that depends on the key and the parameter's name alone, on the CPU."""
    digest = hashlib.sha256(f"{key}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def initialise(model: nn.Module, key: str, table: Table) -> None:
    """Fill every parameter: by its module's own `init_parameter` where it has one, else by the model's table."""
    for module_name, module in model.named_modules():
        own = getattr(module, "init_parameter", None)
        for leaf, parameter in module.named_parameters(recurse=False):
            name = f"{module_name}.{leaf}" if module_name else leaf
            if own is None:
                table(name, parameter, generator(key, name))
            else:
                own(leaf, parameter, generator(key, name))
