"""A run's final weights, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mhc_lab.config.compose import from_dict
from mhc_lab.config.run_id import canonical
from mhc_lab.config.schema import RunConfig
from mhc_lab.errors import LabError
from mhc_lab.files import MapOf, misfit, own_file
from mhc_lab.models.gpt import GPT

_LARGEST_VOCABULARY = 2**24  # of a model that fits a machine
MODEL_GROUPS = ("model", "residual")
BIRTH_ONLY = {"alpha_init", "phi_std", "b_pre_home", "b_pre_away", "h_post_home", "h_post_away", "res_diagonal",
              "expand_base", "init_std"}  # fmt: skip


def load_checkpoint(path: Path, config: RunConfig) -> GPT:
    """The model that `config` describes, on the CPU, with the weights of a checkpoint.pt.

    Raises LabError for a file that is not a checkpoint, and for one of another model: it names what differs.
    Settings that only set initial values may differ.
    """
    content = read_checkpoint(path)
    theirs = _model_settings(from_dict(content["config"], str(path)))
    ours = _model_settings(config)
    differing = [name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]
    if differing:
        words = ", ".join(f"{name}={theirs.get(name)} (asked for: {ours.get(name)})" for name in differing)
        raise LabError(f"{path}: the checkpoint of another model: it has {words}")
    model = GPT(config.model, config.residual, content["vocab_size"])
    model.load_state_dict(content["model"])
    return model


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint.pt: {"model", "config", "vocab_size", "run_id"}, or LabError."""
    try:
        content = torch.load(own_file(path), map_location="cpu", weights_only=True)
    except LabError:
        raise
    except FileNotFoundError as error:
        raise LabError(f"{path}: no such checkpoint (trainer.keep_checkpoint=last keeps one)") from error
    except Exception as error:  # torch raises what its unpickler and zip reader come upon
        raise LabError(f"{path}: not a checkpoint of mhc-lab") from error
    shape = {"model": MapOf(torch.Tensor), "config": dict, "vocab_size": int, "run_id": str}
    if not isinstance(content, dict) or misfit(content, shape) or not 0 < content["vocab_size"] < _LARGEST_VOCABULARY:
        raise LabError(f"{path}: not a checkpoint of mhc-lab")
    return content


def _model_settings(config: RunConfig) -> dict[str, Any]:
    form = canonical(config, "")
    settings = {f"{group}.{name}": value for group in MODEL_GROUPS for name, value in form[group].items()}
    return {name: value for name, value in settings.items() if name.partition(".")[2] not in BIRTH_ONLY}
