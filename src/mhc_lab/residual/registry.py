"""The table of variants and constraints. Torch-free: classes are imported when they are built.

A plugin adds its own by calling `register_constraint` and `register_variant`, from an entry point of the
group `mhc_lab.variants` or from a file named by `residual.plugin`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_type_hints

from mhc_lab.errors import LabError, nearest

if TYPE_CHECKING:
    from mhc_lab.config.schema import ResidualConfig

TRUST_VARIABLE = "MHC_LAB_TRUSTED_PLUGINS"  # sha256 of plugins, for the processes that a command starts
TRUST_ALL = "all"
ENTRY_POINT_GROUP = "mhc_lab.variants"
TOGGLES = ("h_pre", "h_post", "h_res")
COMMON_FIELDS = frozenset({"streams", "expand", "expand_base", "collapse", "collapse_eps", "norm_eps", "stream_dtype"})
EVERYWHERE = frozenset({"variant", "plugin", "recompute"})  # settings of no variant in particular
EXACT = ("permutations", "kronecker")  # values of `residual.sinkhorn` that iterate nothing
MAX_PERMUTED = 5  # streams; 6 would take 720 logits
# What is read only where a mapping is not fixed.
READ_BY_TOGGLE: Mapping[str, frozenset[str]] = {
    "h_pre": frozenset({"b_pre_home", "b_pre_away"}),
    "h_post": frozenset({"h_post_home", "h_post_away"}),
    "h_res": frozenset({"t_max", "res_diagonal", "constraints", "sinkhorn"}),
}
MAPPING_FIELDS = frozenset({"alpha_init", "phi_std", "b_pre_home", "b_pre_away", "h_post_home", "h_post_away"})


@dataclass(frozen=True)
class ConstraintEntry:
    """`target` is "module:Class" or the class itself; `fields` are the settings it reads.

    `settings` is a dataclass of settings of its own (`config.setting`), which it gets by `config.settings(...)`.
    """

    name: str
    target: str | type
    fields: frozenset[str] = frozenset()
    summary: str = ""
    settings: type | None = None


@dataclass(frozen=True)
class Variant:
    """A named recipe: a connection with its constraint and defaults.

    `toggles` are the mappings whose mode can be chosen; the others are fixed. `plain` is a single stream.
    `settings` is a dataclass of settings of its own (`config.setting`): residual.NAME=... sets one, in the run id where
    the variant is used, and its class gets them by `config.settings(...)`.
    `plain_at_birth`: at its birth a stack is x + F(x), which tests hold it to.
    `matches` names the variant whose parameter count the FFN is widened to; `bounded_write`: H_post = 2 sigmoid(.).
    """

    name: str
    target: str | type
    summary: str
    constraint: str = ""
    toggles: tuple[str, ...] = TOGGLES
    fields: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    plain: bool = False
    matches: str = ""
    bounded_write: bool = False
    settings: type | None = None
    plain_at_birth: bool = False

    def layer_constraints(self, config: ResidualConfig) -> list[str]:
        """The constraints that the layers cycle through."""
        return list(config.constraints) or ([self.constraint] if self.constraint else [])

    def own_fields(self, config: ResidualConfig) -> dict[str, dataclasses.Field[Any]]:
        """The settings that this variant and its constraints bring themselves, by name."""
        kinds = [self.settings, *(constraint(name).settings for name in self.layer_constraints(config))]
        return {f.name: f for kind in kinds if kind is not None for f in dataclasses.fields(kind)}

    def accepted_fields(self, config: ResidualConfig) -> frozenset[str]:
        """The settings of `residual` that a user may give with this variant."""
        used = self.fields | frozenset(self.toggles)
        for name in self.layer_constraints(config):
            used |= constraint(name).fields
        return used | EVERYWHERE | self.own_fields(config).keys()

    def used_fields(self, config: ResidualConfig) -> frozenset[str]:
        """The accepted settings that can change the result under the modes of `config`."""
        used = set(self.accepted_fields(config)) - {"plugin", "recompute"}
        modes = {name: mode(config, name) for name in TOGGLES}
        if modes["h_res"] == "fixed":  # no constraint is made
            used -= self.own_fields(config).keys() - {f.name for f in dataclasses.fields(self.settings or _Nothing)}
        if "dynamic" not in modes.values() and config.collapse != "read":
            used -= {"alpha_init", "phi_std", "norm_eps"}
        if config.collapse != "read":
            used -= {"collapse_eps"}
        for toggle, read in READ_BY_TOGGLE.items():
            if modes[toggle] == "fixed":
                used -= read
        if "sinkhorn" in used and config.sinkhorn in EXACT:
            fields = [constraint(name).fields for name in self.layer_constraints(config)]
            used -= {"t_max", "convention"} - frozenset().union(*(f for f in fields if "sinkhorn" not in f))
        if "convention" not in used or config.convention != "v4":
            used -= {"hc_eps"}
        if config.expand == "repeat":
            used -= {"expand_base"}
        return frozenset(used)


@dataclass(frozen=True)
class _Nothing:
    """The settings of what brings none."""


_VARIANTS: dict[str, Variant] = {}
_CONSTRAINTS: dict[str, ConstraintEntry] = {}
_OWN: dict[str, type] = {}  # a setting that a variant or constraint brings -> the first dataclass that has it
_loaded_plugins: set[str] = set()
_entry_points_loaded = False
_restricted = False


def mode(config: ResidualConfig, toggle: str) -> str:
    """The mode of a mapping: what the config says, or `fixed` where the variant has no such toggle."""
    return str(getattr(config, toggle)) if toggle in variant(config.variant).toggles else "fixed"


def stream_count(config: ResidualConfig) -> int:
    """n: 1 for a plain residual, whatever the config says."""
    return 1 if variant(config.variant).plain else config.streams


def register_constraint(
    name: str,
    target: str | type,
    *,
    fields: frozenset[str] | set[str] = frozenset(),
    summary: str = "",
    variant: str = "",
    settings: type | None = None,
) -> None:
    """Add a constraint, and a variant of the same name (or of the name `variant`): mHC's connection with it.

    Raises LabError for a name that is taken, an abstract class, and settings that are none (`_own_settings`).
    """
    _refuse_taken(name, target, _CONSTRAINTS)
    _refuse_abstract(name, target)
    _own_settings(name, settings)
    former = _VARIANTS.get(variant or name)
    if former is not None and former.constraint != name:
        raise _taken(former.name)
    _CONSTRAINTS[name] = ConstraintEntry(name, target, frozenset(fields), summary, settings)
    _VARIANTS[variant or name] = Variant(
        variant or name,
        "mhc_lab.residual.constrained:ConstrainedConnection",
        summary or f"mHC's connection with H_res {name}",
        constraint=name,
        fields=COMMON_FIELDS | MAPPING_FIELDS | {"constraints"},
        bounded_write=True,
    )


def register_variant(variant: Variant) -> None:
    """Add a variant whose connection class is its own. Raises LabError as `register_constraint` does."""
    _refuse_taken(variant.name, variant.target, _VARIANTS)
    _refuse_abstract(variant.name, variant.target)
    _own_settings(variant.name, variant.settings)
    _VARIANTS[variant.name] = variant


def variants() -> list[str]:
    """Names of all registered variants, those of installed plugins included."""
    _load_entry_points()
    return sorted(_VARIANTS)


def constraints() -> list[str]:
    """Names of all registered constraints."""
    _load_entry_points()
    return sorted(_CONSTRAINTS)


def variant(name: str) -> Variant:
    """The entry of a variant, or LabError with the nearest name."""
    _load_entry_points()
    if name not in _VARIANTS:
        raise LabError(f"residual.variant={name}: no such variant; {nearest(name, _VARIANTS)}")
    return _VARIANTS[name]


def constraint(name: str) -> ConstraintEntry:
    """The entry of a constraint, or LabError with the nearest name."""
    _load_entry_points()
    if name not in _CONSTRAINTS:
        raise LabError(f"no constraint '{name}'; {nearest(name, _CONSTRAINTS)}")
    return _CONSTRAINTS[name]


def resolve(target: str | type) -> Any:
    """Import the class behind a "module:Class" target."""
    if isinstance(target, type):
        return target
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def resolve_whole(entry: Variant | ConstraintEntry) -> Any:
    """The class of an entry, LabError where it leaves an abstract method out."""
    found = resolve(entry.target)
    _refuse_abstract(entry.name, found)
    return found


def source(target: str | type) -> str:
    """What tells one implementation from another: the name of a built-in class, a plugin's source by its hash."""
    module = target.__module__ if isinstance(target, type) else target.partition(":")[0]
    if module.startswith("mhc_lab."):
        return f"{module}:{target.__name__}" if isinstance(target, type) else target
    loaded = sys.modules.get(module) or importlib.import_module(module)
    assert loaded.__file__ is not None, f"{module} has no source file"
    return hashlib.sha256(Path(loaded.__file__).read_bytes()).hexdigest()


def plugin_sources(config: ResidualConfig) -> list[str]:
    """Hashes of the source files behind what `config` names, built-in classes left out."""
    entry = variant(config.variant)
    targets = [entry.target, *(constraint(name).target for name in entry.layer_constraints(config))]
    return [found for found in map(source, targets) if ":" not in found]


def check_write(config: ResidualConfig) -> None:
    """LabError where H_post at birth lies outside what the variant's activation can give."""
    if not variant(config.variant).bounded_write:
        return
    for name in ("h_post_home", "h_post_away"):
        value = getattr(config, name)
        if value is not None and not 0 < value < 2:
            raise LabError(f"residual.{name}={value}: H_post = 2 sigmoid(.) lies above 0 and below 2")


def check_sinkhorn(config: ResidualConfig) -> None:
    """LabError where the algorithm of `residual.sinkhorn` has no such n or convention."""
    names = variant(config.variant).layer_constraints(config)
    if mode(config, "h_res") == "fixed" or not any("sinkhorn" in constraint(name).fields for name in names):
        return
    chosen, n = config.sinkhorn, config.streams
    if config.convention == "v4" and chosen != "plain":
        raise LabError(f"residual.sinkhorn={chosen}: convention v4 is defined for plain alone: residual.convention=eq9")
    if chosen == "permutations" and n > MAX_PERMUTED:
        raise LabError(
            f"residual.sinkhorn=permutations: takes n! logits, so residual.streams must be at most 5, not {n}"
        )
    if chosen == "kronecker" and n & (n - 1):
        raise LabError(f"residual.sinkhorn=kronecker: residual.streams={n} must be a power of 2")


def _refuse_taken(name: str, target: str | type, table: Mapping[str, ConstraintEntry | Variant]) -> None:
    """A name stands for one implementation; the same file may be loaded again from a run folder."""
    if name in table and source(table[name].target) != source(target):
        raise _taken(name)


def _taken(name: str) -> LabError:
    return LabError(f"'{name}' is registered already: give the plugin's variant another name")


def own_settings() -> Mapping[str, type]:
    """The settings that registered variants and constraints bring: name -> the dataclass that has it."""
    _load_entry_points()
    return _OWN


def _refuse_abstract(name: str, target: str | type) -> None:
    """What is left out is said when a class is registered; of a "module:Class" when it is built."""
    missing = sorted(getattr(target, "__abstractmethods__", ()))
    if missing and isinstance(target, type):
        raise LabError(f"'{name}': {target.__name__} lacks {', '.join(missing)}")


def _own_settings(name: str, kind: type | None) -> None:
    """LabError unless all fields are made by `config.setting` and none has a name that means something else."""
    if kind is None:
        return
    from mhc_lab.config.schema import ResidualConfig

    if not dataclasses.is_dataclass(kind):
        raise LabError(f"'{name}': settings must be a dataclass, not {kind!r}")
    hints, taken = get_type_hints(kind), {f.name for f in dataclasses.fields(ResidualConfig)}
    for f in dataclasses.fields(kind):
        if "words" not in f.metadata:
            raise LabError(f"'{name}': setting '{f.name}' must be given by mhc_lab.config.setting(default, ...)")
        if f.name in taken:
            raise LabError(f"'{name}': residual.{f.name} is a setting already: give the plugin's another name")
        other = _OWN.setdefault(f.name, kind)
        if get_type_hints(other)[f.name] != hints[f.name]:
            raise LabError(f"'{name}': residual.{f.name} is a setting of another type already: give it another name")


def load_plugin(path: str | Path, *, named: bool = True) -> None:
    """Import a plugin file once; it registers its variants and constraints as it is imported.

    `named`: the user's command line, or a file named on it, says so. What a run's or a study's folder says is no reason
    to run code: that must be content which this command, or the one that started this process, was named; or all is
    trusted. Raises LabError for any other, for what is no file and for what fails.
    """
    file = Path(path).resolve()
    try:
        source = file.read_bytes()
    except OSError as error:
        raise LabError(f"residual.plugin={path}: no such file") from error
    digest = hashlib.sha256(source).hexdigest()
    if named and not _restricted:
        trust_plugin(digest)
    elif not {digest, TRUST_ALL} & _trusted():
        raise LabError(
            f"{path}: is code that this command does not name (sha256 {digest[:12]}…): read it, then name your own "
            "copy with residual.plugin=… where the command takes it, or give --trust-plugin"
        )
    if str(file) in _loaded_plugins:
        return
    # Named by content: two files of one name are two modules, and a copy is the same one.
    spec = importlib.util.spec_from_file_location(f"mhc_lab_plugin_{file.stem}_{digest[:12]}", file)
    if spec is None or spec.loader is None:
        raise LabError(f"residual.plugin={path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        exec(compile(source, str(file), "exec"), vars(module))  # what was read and looked at, not what lies there now
    except LabError as error:
        raise LabError(f"residual.plugin={path}: {error}") from error
    except (Exception, SystemExit) as error:
        raise LabError(f"residual.plugin={path}: {type(error).__name__}: {error}") from error
    _loaded_plugins.add(str(file))


def trust_plugin(digest: str) -> None:
    """Let this process and those that it starts run the plugin of this sha256; TRUST_ALL: any."""
    os.environ[TRUST_VARIABLE] = ",".join(sorted(_trusted() | {digest}))


def restrict_plugins(restricted: bool = True) -> None:
    """From here on paths of plugins come from files that nobody named: none of them is a reason to run code."""
    global _restricted
    _restricted = restricted


def _trusted() -> set[str]:
    return set(filter(None, os.environ.get(TRUST_VARIABLE, "").split(",")))


def _load_entry_points() -> None:
    global _entry_points_loaded
    if _entry_points_loaded:
        return
    _entry_points_loaded = True
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            point.load()
        except Exception as error:
            raise LabError(
                f"the installed plugin '{point.name}' ({point.value}) does not load: {type(error).__name__}: {error}; "
                "mend or uninstall it"
            ) from error


_BUILT_IN = "mhc_lab.residual.constraints."
register_constraint(
    "doubly_stochastic",
    _BUILT_IN + "doubly_stochastic:DoublyStochastic",
    fields={"sinkhorn", "t_max", "convention", "hc_eps", "res_diagonal"},
    summary="rows and columns sum to 1, by Sinkhorn-Knopp (mHC Eq. 9)",
    variant="mhc",
)
register_constraint(
    "orthogonal", _BUILT_IN + "orthogonal:Orthogonal", summary="rotations, by the Cayley transform of a skew matrix"
)
register_constraint(
    "row_stochastic",
    _BUILT_IN + "stochastic:RowStochastic",
    fields={"res_diagonal"},
    summary="rows sum to 1, by softmax",
)
register_constraint(
    "column_stochastic",
    _BUILT_IN + "stochastic:ColumnStochastic",
    fields={"res_diagonal"},
    summary="columns sum to 1, by softmax",
)
register_constraint(
    "unconstrained",
    _BUILT_IN + "unconstrained:Unconstrained",
    summary="any real matrix: mHC's connection without its constraint",
)

_PLAIN = "mhc_lab.residual.plain:PlainConnection"
register_variant(
    Variant(
        "identity",
        _PLAIN,
        "the plain residual, one stream",
        toggles=(),
        fields=frozenset({"stream_dtype"}),
        plain=True,
        plain_at_birth=True,
    )
)
register_variant(
    Variant(
        "identity_wide",
        _PLAIN,
        "the plain residual, FFN widened to the parameter count of mHC with as many streams",
        toggles=(),
        fields=frozenset({"stream_dtype", "streams"}),
        plain=True,
        plain_at_birth=True,
        matches="mhc",
    )
)
register_variant(
    Variant(
        "identity_hc",
        "mhc_lab.residual.constrained:ConstrainedConnection",
        "n streams without mixing: mHC's reads and writes, H_res = I",
        toggles=("h_pre", "h_post"),
        fields=COMMON_FIELDS | MAPPING_FIELDS,
        bounded_write=True,
    )
)
register_variant(
    Variant(
        "hc",
        "mhc_lab.residual.hyper:HyperConnection",
        "Hyper-Connections, unconstrained (mHC paper Eq. 5)",
        fields=COMMON_FIELDS | MAPPING_FIELDS,
        # The HC paper's start: read the home stream, write to all alike, H_res = I.
        defaults=MappingProxyType({"b_pre_home": 1.0, "b_pre_away": 0.0, "h_post_home": 1.0, "h_post_away": 1.0}),
    )
)
