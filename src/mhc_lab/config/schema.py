"""Every setting of a run: its type, its default, its domain, and whether it can change the result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from mhc_lab.errors import LabError

Mode = Literal["dynamic", "static", "fixed"]
Sinkhorn = Literal["plain", "log", "overrelaxed", "newton", "warm", "permutations", "kronecker"]
MAX_SEED = 2**63 - 1  # what generators take
MAX_STREAMS = 1024  # a slip of the keyboard, not a design


@dataclass(frozen=True)
class Domain:
    """The values that a number may take, and the words for them."""

    words: str
    holds: Callable[[Any], bool]


def at_least(low: float) -> Domain:
    return Domain(f"at least {low}", lambda value: value >= low)


def above(low: float) -> Domain:
    return Domain(f"above {low}", lambda value: value > low)


def between(low: float, high: float) -> Domain:
    return Domain(f"above {low} and below {high}", lambda value: low < value < high)


def from_to_below(low: float, high: float) -> Domain:
    return Domain(f"from {low} to below {high}", lambda value: low <= value < high)


def within(low: float, high: float) -> Domain:
    return Domain(f"from {low} to {high}", lambda value: low <= value <= high)


FINITE = Domain("a finite number", math.isfinite)
RECOMPUTE = Domain(
    "off, auto or a number of layers, at least 1",
    lambda value: value in ("off", "auto") or (value.isascii() and value.isdigit() and int(value) > 0),
)


def setting(default: Any, domain: Domain | None = None, *, in_id: bool = True, added: bool = False) -> Any:
    """A dataclass field. `in_id=False`: it cannot change the result, so it stays out of the run id.

    `added=True`: it came when there were runs already, whose value the default is; at that it stays out of the id,
    so that those runs keep their names.
    """
    metadata = {"domain": domain, "in_id": in_id, "added": added}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class ResidualConfig:
    """The residual connection. Fields that a variant does not use are dropped from its run id.

    `b_pre_home` and `b_pre_away` are biases before the activation (for hc there is none);
    `h_post_home` and `h_post_away` are values of H_post itself, by default 2 - 1/n and 1 - 1/n (mean 1).
    `recompute` trades time for memory: streams are kept every so many layers only, and what lies between is computed
    again in backward (`models/recompute.py`); a plain residual has nothing to recompute.
    """

    variant: str = setting("mhc")
    streams: int = setting(4, within(1, MAX_STREAMS))
    h_pre: Mode = setting("dynamic")
    h_post: Mode = setting("dynamic")
    h_res: Mode = setting("dynamic")
    constraints: list[str] = setting([])  # names cycled over the layers; empty: the variant's own
    t_max: int = setting(20, at_least(1))
    sinkhorn: Sinkhorn = setting("plain")  # what keeps H_res doubly stochastic
    convention: Literal["eq9", "v4"] = setting("eq9")
    alpha_init: float = setting(0.01, FINITE)
    phi_std: float = setting(0.02, at_least(0))
    b_pre_home: float = setting(2.0, FINITE)
    b_pre_away: float = setting(-2.0, FINITE)
    h_post_home: float | None = setting(None, FINITE)
    h_post_away: float | None = setting(None, FINITE)
    res_diagonal: float = setting(0.95, between(0, 1))
    expand: Literal["repeat", "scaled"] = setting("repeat")
    expand_base: float = setting(1.0, between(0, 2))  # scaled: stream i starts at expand_base ** i
    collapse: Literal["mean", "sum", "read"] = setting("mean")
    stream_dtype: Literal["fp32", "bf16"] = setting("fp32")
    recompute: str = setting("off", RECOMPUTE, in_id=False)
    plugin: str = setting("", in_id=False)  # its content is in the id, its place is not

    def __post_init__(self) -> None:
        text = str(self.recompute)
        self.recompute = "off" if text == "False" else text  # YAML 1.1 reads `off` as false


@dataclass
class ModelConfig:
    """The backbone: a decoder-only transformer."""

    blocks: int = setting(4, at_least(1))
    dim: int = setting(64, at_least(1))
    heads: int = setting(4, at_least(1))
    ffn: Literal["swiglu", "gelu"] = setting("swiglu")
    ffn_width: int | None = setting(None, at_least(1))  # default: 8/3 dim (swiglu) or 4 dim (gelu)
    sequence_length: int = setting(128, at_least(2))
    vocab_size: int | None = setting(None, at_least(2))  # default: that of the data
    tie_embeddings: bool = setting(False)
    rope_theta: float = setting(10000.0, above(0))
    init_std: float = setting(0.02, above(0))


@dataclass
class DataConfig:
    """What is read. `batch_size` is global: it is shared out over the devices."""

    source: Literal["stdlib", "text", "synthetic"] = setting("stdlib")
    files: list[str] = setting([], in_id=False)  # paths or globs; the corpus fingerprint is in the id
    task: Literal["copy", "recall", "induction"] = setting("induction")
    synthetic_vocab: int = setting(64, at_least(8))
    batch_size: int = setting(8, at_least(1))
    val_windows: int = setting(64, at_least(1))
    val_fraction: float = setting(0.05, between(0, 1))


@dataclass
class OptimConfig:
    """AdamW with warm-up; `step` is the paper's schedule (Table 5)."""

    learning_rate: float = setting(3e-3, above(0))
    weight_decay: float = setting(0.1, at_least(0))
    beta1: float = setting(0.9, from_to_below(0, 1))
    beta2: float = setting(0.95, from_to_below(0, 1))
    eps: float = setting(1e-8, above(0))
    warmup_steps: int = setting(20, at_least(0))
    schedule: Literal["step", "cosine", "constant"] = setting("step")
    min_ratio: float = setting(0.1, within(0, 1))  # where cosine ends, as a part of learning_rate
    clip_norm: float = setting(1.0, at_least(0))  # 0: no clipping


@dataclass
class TrainerConfig:
    """How long, how precisely and on what a run trains."""

    max_steps: int = setting(300, at_least(1))
    precision: Literal["fp32", "bf16-mixed"] = setting("fp32")
    accelerator: Literal["cpu", "gpu", "auto"] = setting("cpu", in_id=False)
    strategy: Literal["auto", "ddp", "fsdp2"] = setting("auto", in_id=False)
    devices: int = setting(1, at_least(1), in_id=False)
    num_nodes: int = setting(1, at_least(1), in_id=False)
    threads: int = setting(0, at_least(0), in_id=False)  # 0: as many as there are cores for this run
    log_every: int = setting(10, at_least(1), in_id=False)
    val_every: int = setting(0, at_least(0), in_id=False)  # 0: only at the last step
    probe_every: int = setting(100, at_least(0), in_id=False)  # 0: only at the steps that records need
    keep_checkpoint: Literal["last", "none"] = setting("last", in_id=False)


@dataclass
class LauncherConfig:
    """How the runs of a study are spread over one machine."""

    workers: int = setting(1, at_least(1), in_id=False)
    devices: list[int] = setting([], in_id=False)  # GPU indices; empty: CPU, or all that are visible
    runs_per_device: int = setting(1, at_least(1), in_id=False)
    heartbeat_interval: int = setting(10, at_least(1), in_id=False)  # seconds
    heartbeat_grace: int = setting(40, at_least(2), in_id=False)  # seconds


@dataclass
class TrackingConfig:
    """Where runs are mirrored. The run folder is always written first."""

    backend: Literal["mlflow", "none"] = setting("mlflow", in_id=False)
    uri: str = setting("", in_id=False)  # default: sqlite file under results/runs
    experiment: str = setting("mhc_lab", in_id=False)


@dataclass
class RunConfig:
    """One training run, resolved."""

    residual: ResidualConfig = field(default_factory=ResidualConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seed: int = setting(0, within(0, MAX_SEED))
    control: bool = setting(False)  # control arm: another initialisation key and data order


GROUPS = tuple(f.name for f in dataclasses.fields(RunConfig) if dataclasses.is_dataclass(f.default_factory))


def check_domains(config: Any, prefix: str = "") -> None:
    """Raise LabError for the first value that lies outside its field's domain."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            check_domains(value, f"{prefix}{f.name}.")
            continue
        domain: Domain | None = f.metadata.get("domain")
        if isinstance(value, float) and not math.isfinite(value):
            raise LabError(f"{prefix}{f.name}={value}: must be a finite number")
        if domain is not None and value is not None and not domain.holds(value):
            raise LabError(f"{prefix}{f.name}={value}: must be {domain.words}")
