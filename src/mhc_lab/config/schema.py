"""Every setting of a run: its type, its default, its domain, and whether it can change the result."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from mhc_lab.errors import LabError, shown

Mode = Literal["dynamic", "static", "fixed"]
Sinkhorn = Literal["plain", "log", "overrelaxed", "newton", "warm", "permutations", "kronecker"]
Own = TypeVar("Own")
NEVER = object()  # no value of a setting
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
OF_FILES = ("data.source", ("text",))
OF_TASKS = ("data.source", ("synthetic",))
OF_TEXTS = ("data.source", ("stdlib", "text", "installed"))
TRACKED = ("tracking.backend", ("mlflow",))
EXPERIMENT = Domain("1 to 250 characters", lambda value: 0 < len(value.strip()) <= len(value) <= 250)  # MLflow's column
RECOMPUTE = Domain(
    "off, auto or a number of layers, at least 1",
    lambda value: value in ("off", "auto") or (value.isascii() and value.isdigit() and int(value) > 0),
)


def setting(
    default: Any,
    domain: Domain | None = None,
    words: str = "",
    *,
    in_id: bool = True,
    added: Any = NEVER,
    read_by: tuple[str, tuple[str, ...]] | None = None,
) -> Any:
    """A dataclass field, with what it means in `words`, for `mhc-lab list settings`.

    `in_id=False`: it cannot change the result, so it stays out of the run id. `added`: it came when there were runs
    already, which did as this value says; at it the setting stays out of the id, so that those runs keep their names,
    whatever its default may become.
    `read_by`: a setting and the values of it that make this one count (`reading.py`).
    """
    metadata = {"domain": domain, "words": words, "in_id": in_id, "added": added, "read_by": read_by}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def default_of(field: dataclasses.Field[Any]) -> Any:
    """A setting's default, a list of its own where it is one."""
    return field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[operator]


@dataclass
class ResidualConfig:
    """The residual connection. Fields that a variant does not use are dropped from its run id.

    `b_pre_home` and `b_pre_away` are biases before the activation (for hc there is none);
    `h_post_home` and `h_post_away` are values of H_post itself, by default 2 - 1/n and 1 - 1/n (mean 1).
    `recompute` trades time for memory: streams are kept every so many layers only, and what lies between is computed
    again in backward (`models/recompute.py`); a plain residual has nothing to recompute.
    """

    variant: str = setting("mhc", None, "the connection: mhc-lab list variants")
    streams: int = setting(4, within(1, MAX_STREAMS), "n, the parallel residual streams; at n = 1 reads still scale")
    h_pre: Mode = setting("dynamic", None, "how a layer reads the streams: by token, learned, or 1/n each")
    h_post: Mode = setting("dynamic", None, "how a layer writes to the streams: by token, learned, or 1 each")
    h_res: Mode = setting("dynamic", None, "how streams mix: by token, learned, or not at all (I)")
    constraints: list[str] = setting([], None, "constraints of H_res, by layer in turn; empty: the variant's own")
    t_max: int = setting(20, at_least(1), "Sinkhorn iterations (Eq. 9)")
    sinkhorn: Sinkhorn = setting("plain", None, "how H_res is kept doubly stochastic")
    convention: Literal["eq9", "v4"] = setting("eq9", None, "the paper's Eq. 9, or DeepSeek-V4's shipped form")
    alpha_init: float = setting(0.01, FINITE, "gate of the dynamic part at birth")
    phi_std: float = setting(0.02, at_least(0), "standard deviation of the projections phi at birth")
    b_pre_home: float = setting(2.0, FINITE, "bias of H_pre for a layer's home stream, before the activation")
    b_pre_away: float = setting(-2.0, FINITE, "bias of H_pre for the other streams")
    h_post_home: float | None = setting(None, FINITE, "H_post at birth for the home stream; null: 2 - 1/n")
    h_post_away: float | None = setting(None, FINITE, "H_post at birth for the others; null: 1 - 1/n")
    res_diagonal: float = setting(0.95, between(0, 1), "diagonal of H_res at birth")
    expand: Literal["repeat", "scaled"] = setting("repeat", None, "how the embedding becomes n streams")
    expand_base: float = setting(1.0, between(0, 2), "scaled: stream i starts at this to the power of i")
    collapse: Literal["mean", "sum", "read"] = setting("mean", None, "how n streams become one; read: learned")
    collapse_eps: float = setting(0.0, at_least(0), "added to a learned read; DeepSeek-V4 ships 1e-6", added=0.0)
    norm_eps: float = setting(1e-20, at_least(0), "of the RMSNorm before phi; released models have 1e-6", added=1e-20)
    hc_eps: float = setting(1e-6, at_least(0), "of convention v4: added to H_pre and to Sinkhorn's sums", added=1e-6)
    stream_dtype: Literal["fp32", "bf16"] = setting("fp32", None, "what the streams are kept in")
    recompute: str = setting("off", RECOMPUTE, "keep streams every so many layers only (Eq. 20)", in_id=False)
    plugin: str = setting("", None, "a Python file with variants of your own", in_id=False)  # its content is in the id
    # Typed and listed as residual.NAME; in the id where they are used.
    own: dict[str, Any] = setting({}, None, "settings that the variant or constraint brings itself", in_id=False)

    def settings(self, kind: type[Own]) -> Own:
        """The settings that a variant or constraint brings itself, as the dataclass that it registered."""
        names = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
        return kind(**{name: self.own[name] for name in names if name in self.own})

    def __post_init__(self) -> None:
        text = str(self.recompute)  # a number in a file
        self.recompute = "off" if text.lower() in ("false", "no") else text


@dataclass
class ModelConfig:
    """The backbone: a decoder-only transformer."""

    blocks: int = setting(4, at_least(1), "transformer blocks; each has two residual layers")
    dim: int = setting(64, at_least(1), "C, the width of a stream")
    heads: int = setting(4, at_least(1), "attention heads")
    ffn: Literal["swiglu", "gelu"] = setting("swiglu", None, "the feed-forward layer")
    ffn_width: int | None = setting(None, at_least(1), "its width; null: 8/3 dim (swiglu) or 4 dim (gelu)")
    sequence_length: int = setting(128, at_least(2), "tokens of a window")
    vocab_size: int | None = setting(None, at_least(2), "rows of the embedding; null: as the data has")
    tie_embeddings: bool = setting(False, None, "one matrix for embedding and output")
    rope_theta: float = setting(10000.0, above(0), "base of the rotary positions")
    init_std: float = setting(0.02, above(0), "standard deviation of weights at birth")


@dataclass
class DataConfig:
    """What is read. `batch_size` is global: it is shared out over the devices."""

    source: Literal["stdlib", "text", "installed", "synthetic"] = setting(
        "stdlib", None, "what is read: data=text, for example"
    )
    # The corpus fingerprint is in the id.
    files: list[str] = setting([], None, "paths or globs of text files", in_id=False, read_by=OF_FILES)
    task: Literal["copy", "recall", "induction"] = setting("induction", None, "what is to be learned", read_by=OF_TASKS)
    synthetic_vocab: int = setting(64, at_least(8), "tokens of the task", read_by=OF_TASKS)
    batch_size: int = setting(8, at_least(1), "windows a step, over all devices")
    val_windows: int = setting(64, at_least(1), "windows that validation scores")
    val_fraction: float = setting(0.05, between(0, 1), "part held back for validation", read_by=OF_TEXTS)


@dataclass
class OptimConfig:
    """AdamW with warm-up; `step` is the paper's schedule (Table 5)."""

    learning_rate: float = setting(3e-3, above(0), "of AdamW, after warm-up")
    weight_decay: float = setting(0.1, at_least(0), "on matrices; not on biases, gates and norms")
    beta1: float = setting(0.9, from_to_below(0, 1), "of AdamW")
    beta2: float = setting(0.95, from_to_below(0, 1), "of AdamW")
    eps: float = setting(1e-8, above(0), "of AdamW")
    warmup_steps: int = setting(20, at_least(0), "steps of linear warm-up")
    schedule: Literal["step", "cosine", "constant"] = setting("step", None, "step: the paper's drops (Table 5)")
    min_ratio: float = setting(
        0.1, within(0, 1), "where cosine ends, as a part of learning_rate", read_by=("optim.schedule", ("cosine",))
    )
    clip_norm: float = setting(1.0, at_least(0), "largest gradient norm; 0: no clipping")


@dataclass
class TrainerConfig:
    """How long, how precisely and on what a run trains."""

    max_steps: int = setting(300, at_least(1), "training steps")
    precision: Literal["fp32", "bf16-mixed"] = setting("fp32", None, "of the layers")
    accelerator: Literal["cpu", "gpu", "auto"] = setting("cpu", None, "where runs train", in_id=False)
    strategy: Literal["auto", "ddp", "fsdp2"] = setting("auto", None, "how devices share a run", in_id=False)
    devices: int = setting(1, at_least(1), "of one run, on each node", in_id=False)
    num_nodes: int = setting(1, at_least(1), "machines of one run", in_id=False)
    threads: int = setting(0, at_least(0), "of the CPU; 0: MHC_LAB_THREADS, else its part of the cores", in_id=False)
    log_every: int = setting(10, at_least(1), "steps between lines of metrics", in_id=False)
    val_every: int = setting(0, at_least(0), "steps between validations; 0: only at the last step", in_id=False)
    probe_every: int = setting(100, at_least(0), "steps between probes of gains; 0: only as records need", in_id=False)
    time_limit: int = setting(0, at_least(0), "seconds after which a run is ended as failed; 0: none", in_id=False)
    keep_checkpoint: Literal["last", "none"] = setting("last", None, "whether the final weights stay", in_id=False)


@dataclass
class LauncherConfig:
    """How the runs of a study are spread over one machine."""

    workers: int = setting(1, at_least(1), "runs at once on this machine", in_id=False)
    devices: list[int] = setting([], None, "GPUs by index; empty: the CPU, or all that are visible", in_id=False)
    runs_per_device: int = setting(1, at_least(1), "runs that share a GPU", in_id=False)
    heartbeat_interval: int = setting(10, at_least(1), "seconds between signs of life of a worker", in_id=False)
    heartbeat_grace: int = setting(40, at_least(2), "seconds of silence after which it counts as dead", in_id=False)


@dataclass
class TrackingConfig:
    """Where runs are mirrored. The run folder is always written first."""

    backend: Literal["mlflow", "none"] = setting("mlflow", None, "tracking=none needs no MLflow", in_id=False)
    uri: str = setting(
        "", None, "MLflow server or database; empty: results/runs/mlflow.db", in_id=False, read_by=TRACKED
    )
    artifacts: Literal["none", "small", "all"] = setting(
        "small",
        None,
        "files attached in MLflow: small has config, record, tables and page; all the checkpoints too",
        in_id=False,
        read_by=TRACKED,
    )
    experiment: str = setting("mhc_lab", EXPERIMENT, "MLflow experiment", in_id=False, read_by=TRACKED)


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
    seed: int = setting(0, within(0, MAX_SEED), "of initial values and of the order of the data")
    # Another initialisation key and data order.
    control: bool = setting(False, None, "the control arm, which measures noise")


GROUPS = tuple(f.name for f in dataclasses.fields(RunConfig) if dataclasses.is_dataclass(f.default_factory))


def check_domains(config: Any, prefix: str = "") -> None:
    """Raise LabError for the first value that lies outside its field's domain."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            check_domains(value, f"{prefix}{f.name}.")
            continue
        check_domain(f"{prefix}{f.name}", value, f)


def check_domain(key: str, value: Any, field: dataclasses.Field[Any]) -> None:
    """Raise LabError for a value of a setting that lies outside its field's domain."""
    domain: Domain | None = field.metadata.get("domain")
    if isinstance(value, float) and not math.isfinite(value):
        raise LabError(f"{key}={value}: must be a finite number")
    if domain is not None and value is not None and not domain.holds(value):
        raise LabError(f"{key}={shown(str(value))}: must be {domain.words}")
