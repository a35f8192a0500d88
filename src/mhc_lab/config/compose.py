"""Groups and overrides in Hydra's spelling (`group=option a.b=value`) -> RunConfig, or LabError with the fix."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import mhc_lab
from mhc_lab import secrets
from mhc_lab.config.reading import reset_unread, unread
from mhc_lab.config.schema import GROUPS, ResidualConfig, RunConfig, check_domain, check_domains, default_of
from mhc_lab.config.values import checked, parse, refuse_unprintable
from mhc_lab.errors import LabError, nearest, shown
from mhc_lab.residual import registry

_TOP_KEYS = tuple(f.name for f in dataclasses.fields(RunConfig) if f.name not in GROUPS)
_GROUP_TYPES = {f.name: f.default_factory for f in dataclasses.fields(RunConfig) if f.name in GROUPS}
_known: dict[str, RunConfig] = {}  # by the layers that were merged into it; as many as options are combined
_LARGEST_FILE = 1_000_000  # bytes of a file that a user writes


class _UniqueKeys:
    """YAML would let the last of two rows of one name win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]  # type: ignore[attr-defined]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)  # type: ignore[misc, no-any-return]


class _Typed(_UniqueKeys, yaml.SafeLoader):
    """Numbers, words and truth values as YAML 1.1 has them."""


class _AsWritten(_UniqueKeys, yaml.BaseLoader):
    """Every value as the text that stands there: `off` is a word, not false."""


def packaged(folder: str) -> Path:
    """`conf` or `sweeps` as shipped: inside the wheel, or at the top of a source tree."""
    inside = Path(mhc_lab.__file__).parent / f"_{folder}"
    return inside if inside.is_dir() else Path(mhc_lab.__file__).parents[2] / folder


def config_dirs(config_dir: Path | None = None) -> list[Path]:
    """Where configuration is looked up, first match wins: --config-dir, ./conf, the packaged one."""
    if config_dir is not None:
        refuse_unprintable("--config-dir", str(config_dir))
        if not config_dir.is_dir():
            raise LabError(f"--config-dir {shown(str(config_dir))}: no such folder")
    dirs = [config_dir] if config_dir else []
    return [*dirs, *(d for d in (Path("conf"), packaged("conf")) if d.is_dir())]


def options(group: str, config_dir: Path | None = None) -> dict[str, Path]:
    """The options of a group and their files."""
    found: dict[str, Path] = {}
    for directory in config_dirs(config_dir):
        for file in sorted((directory / group).glob("*.yaml")):
            found.setdefault(file.stem, file)
    return found


def find_file(name_or_path: str, known: Mapping[str, Path], kind: str) -> Path:
    """A grid or sweep (`kind`) by its name, or a file of one's own; LabError with the nearest name."""
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise LabError(f"{shown(name_or_path)}: no such {kind} file")
        return path
    if name_or_path not in known:
        raise LabError(f"no {kind} '{shown(name_or_path)}'; {nearest(name_or_path, known)}")
    return known[name_or_path]


def read_yaml(path: Path, *, as_written: bool = False) -> dict[str, Any]:
    """A YAML mapping, or LabError with the line where it goes wrong. `as_written`: all its values are text."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise LabError(f"{path}: larger than {_LARGEST_FILE // 1000} kB, which no such file needs")
        content = copy.deepcopy(_loaded(path.read_text(encoding="utf-8"), as_written))
    except yaml.YAMLError as error:
        raise LabError(f"{path}: not valid YAML: {_where(error)}") from error
    except RecursionError as error:
        raise LabError(f"{path}: not valid YAML: nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits, a date that is none, bytes that are no UTF-8
        raise LabError(f"{path}: cannot be read: {shown(str(error))}") from error
    except OSError as error:
        raise LabError(f"{path}: cannot be read: {error.strerror}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise LabError(f"{path}: must be a mapping of keys to values")
    return content


@lru_cache(maxsize=256)
def _loaded(text: str, as_written: bool) -> Any:
    """A grid reads the same options for each of its rows."""
    return yaml.load(text, _AsWritten if as_written else _Typed)


def _where(error: yaml.YAMLError) -> str:
    """What is wrong and where, in one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    said = " ".join(str(problem or error).split())[:200]
    return said if mark is None else f"line {mark.line + 1}: {said}"


def compose(overrides: Sequence[str] = (), *, shared: Sequence[str] = (), config_dir: Path | None = None) -> RunConfig:
    """Resolve a run's configuration.

    Order, later wins: dataclass defaults, the variant's defaults, the options of config.yaml, `shared`, `overrides`.
    A setting that the chosen options do not read is an error in `overrides`, and gets its default again where it is
    `shared` (what all rows of a grid share may not concern each of them).
    """
    chosen = _defaults(config_dir)
    texts = [(*_split(text), is_shared) for group, is_shared in ((shared, True), (overrides, False)) for text in group]
    chosen |= {key: value for key, value, _ in texts if key in GROUPS}
    # First: it may bring the variant and the settings that others name.
    if not load_named_plugin([*shared, *overrides]):
        _load_plugin_of_option(chosen["residual"], config_dir)
    values: list[tuple[str, Any, bool]] = []  # key, value, whether it is shared
    for key, value, is_shared in texts:
        if key not in GROUPS:
            check_key(key)
            values.append((key, parse(key, value), is_shared))
    given = {key: value for key, value, _ in values}
    layers = {group: _option(group, name, config_dir) for group, name in chosen.items()}
    residual = layers["residual"]
    variant = registry.variant(str(given.get("residual.variant", residual.get("variant", "mhc"))))
    resolved = _merged({"residual": _apart(variant.defaults)}, {**layers, "residual": _apart(residual)})
    for key, value in given.items():
        group, _, name = key.rpartition(".")
        if key in _own_keys():
            resolved.residual.own[name] = value
            continue
        setattr(resolved, group or name, replace(getattr(resolved, group), **{name: value}) if group else value)
    own = {*residual, *(key.removeprefix("residual.") for key, _, is_shared in values if not is_shared)}
    shared_keys = {key.removeprefix("residual.") for key, _, is_shared in values if is_shared}
    _check_residual(resolved.residual, own, shared_keys)
    check_domains(resolved)
    registry.check_write(resolved.residual)
    registry.check_sinkhorn(resolved.residual)
    for key, _, is_shared in values:
        if said := unread(resolved, key):
            if not is_shared:
                raise LabError(said)
            reset_unread(resolved, key)
    _check_together(resolved)
    # A run folder is opened from anywhere: its paths must not hang on where the command was given.
    resolved.data.files = [_absolute("data.files", file) for file in resolved.data.files]
    resolved.tracking.uri = secrets.keep(resolved.tracking.uri)  # what is kept and shown of it
    if resolved.residual.plugin:
        resolved.residual.plugin = _absolute("residual.plugin", resolved.residual.plugin)
    return resolved


def _merged(*layers: Mapping[str, Any]) -> RunConfig:
    """Layers of settings over the schema's defaults, the last wins; each combination is merged once."""
    key = repr(layers)
    if key not in _known:
        try:
            merged = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), *layers))
        except OmegaConfBaseException as error:
            raise LabError(_one_line(error)) from error
        assert isinstance(merged, RunConfig)
        _known[key] = merged
    return copy.deepcopy(_known[key])


def check_typed(overrides: Sequence[str]) -> None:
    """LabError for an override that is wrong whatever it is combined with: its key, or the value of a setting."""
    load_named_plugin(overrides)
    for text in overrides:
        key, value = _split(text)
        if key not in GROUPS:
            check_key(key)
            group, _, name = key.rpartition(".")
            owner: Any = _GROUP_TYPES[group] if group else RunConfig
            owner = registry.own_settings()[name] if key in _own_keys() else owner
            check_domain(key, parse(key, value), next(f for f in dataclasses.fields(owner) if f.name == name))


def residual_config(variant: str, settings: Mapping[str, Any]) -> ResidualConfig:
    """The residual settings of one variant, checked as `compose` checks them; LabError for what it would refuse."""
    entry = registry.variant(variant)
    known = [*_names(ResidualConfig), *registry.own_settings()]
    for name in settings:
        if name not in known:
            raise LabError(f"no setting '{name}'; {nearest(name, known)}")
        if f"residual.{name}" in _own_keys():
            checked(f"residual.{name}", settings[name])
    try:
        given: dict[str, Any] = _apart({**entry.defaults, **settings, "variant": variant})
        resolved = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ResidualConfig), given))
    except OmegaConfBaseException as error:
        raise LabError(_one_line(error)) from error
    assert isinstance(resolved, ResidualConfig)
    _check_residual(resolved, set(settings), set())
    check_domains(resolved, "residual.")
    registry.check_write(resolved)
    registry.check_sinkhorn(resolved)
    return resolved


def from_dict(content: dict[str, Any], origin: str) -> RunConfig:
    """A RunConfig from a plain mapping (a run folder's config.yaml): data, in which nothing is filled in.

    Raises LabError for a setting that does not exist and a value of another type; what is missing is at its default.
    """
    config = RunConfig()
    try:
        for group, inner in content.items():
            check_key(str(group))
            if group not in GROUPS:
                setattr(config, str(group), checked(str(group), inner))
                continue
            if not isinstance(inner, dict):
                raise LabError(f"{group}: must be a mapping of settings")
            for name, value in inner.items():
                if (group, name) == ("residual", "own"):
                    config.residual.own = _own_of_file(value)
                    continue
                check_key(f"{group}.{name}")
                setattr(getattr(config, group), name, checked(f"{group}.{name}", value))
        check_domains(config)
    except LabError as error:
        raise LabError(f"{origin}: {error}") from error
    return config


def to_dict(config: RunConfig) -> dict[str, Any]:
    """A plain mapping of strings, numbers and lists."""
    return dataclasses.asdict(config)


def default_option(group: str, config_dir: Path | None = None) -> str:
    """The option of a group where a command names none."""
    return _defaults(config_dir)[group]


def _defaults(config_dir: Path | None) -> dict[str, str]:
    """The option of each group where a command names none: every config.yaml may change some of them."""
    chosen: dict[str, str] = {}
    for directory in reversed(config_dirs(config_dir)):
        file = directory / "config.yaml"
        if not file.is_file():
            continue
        for group, option in read_yaml(file).items():
            if group not in GROUPS:
                raise LabError(
                    f"{file}: no group '{group}'; {nearest(str(group), GROUPS)} "
                    "(a folder ./conf is read as mhc-lab's; if it is another program's, run elsewhere)"
                )
            if not isinstance(option, str):
                raise LabError(f"{file}: {group} must name an option; {nearest('', options(group, config_dir))}")
            chosen[group] = option
    missing = [group for group in GROUPS if group not in chosen]
    if missing:
        raise LabError(f"no option for {', '.join(missing)} in any config.yaml: reinstall mhc-lab")
    return chosen


def _own_keys() -> Set[str]:
    """The settings that variants and constraints bring, as they are typed."""
    return {f"residual.{name}" for name in registry.own_settings()}


def _apart(residual: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `residual` as its dataclass has them: those that a variant brings lie in `own`."""
    brought = {name: value for name, value in residual.items() if f"residual.{name}" in _own_keys()}
    rest = {name: value for name, value in residual.items() if name not in brought}
    return {**rest, "own": brought} if brought else rest


def _own_of_file(content: Any) -> dict[str, Any]:
    """`residual.own` of a run's config.yaml: data, whether or not the plugin that brings the settings is loaded."""
    if not isinstance(content, dict):
        raise LabError("residual.own: must be a mapping of settings")
    for name, value in content.items():
        parts = value if isinstance(value, list) else [value]
        if not (isinstance(name, str) and name.isidentifier()):
            raise LabError(f"residual.own: {shown(repr(name))} is no name of a setting")
        if not all(part is None or isinstance(part, str | int | float | bool) for part in parts):
            raise LabError(f"residual.own.{name}: {shown(repr(value))} is no value of a setting")
        if f"residual.{name}" in _own_keys():
            checked(f"residual.{name}", value)
    return dict(content)


def _names(kind: Any) -> list[str]:
    """The settings of a group that are typed by their names."""
    return [f.name for f in dataclasses.fields(kind) if f.name != "own"]


def load_named_plugin(overrides: Sequence[str]) -> bool:
    """Load the plugin that the last of these names, if one does; whether one says which."""
    given = [value for key, value in map(_split, overrides) if key == "residual.plugin"]
    if given:
        _load_plugin(parse("residual.plugin", given[-1]))
    return bool(given)


def _load_plugin_of_option(name: str, config_dir: Path | None) -> None:
    """Load the plugin that an option of `residual` names: its settings are read when there is one."""
    file = options("residual", config_dir).get(name)
    if file is not None and "plugin" in (settings := _settings(file)):
        _load_plugin(_of_file(file, "residual", "plugin", settings["plugin"]))


def _load_plugin(path: Any) -> None:
    if path:
        registry.load_plugin(_absolute("residual.plugin", str(path)))


def _split(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise LabError(f"'{shown(text)}': an override is written group=option or a.b=value")
    refuse_unprintable(shown(key), value)
    return key, value


def check_key(key: str) -> None:
    """LabError, with the nearest name, for what is no setting (a.b) and no group."""
    if key in GROUPS:
        return
    group, dot, name = key.partition(".")
    if not dot:
        if group not in _TOP_KEYS:
            raise LabError(f"no key or group '{shown(group)}'; {nearest(group, [*GROUPS, *_TOP_KEYS])}")
        return
    if group not in GROUPS:
        raise LabError(f"no group '{shown(group)}' (in {shown(key)}); {nearest(group, GROUPS)}")
    names = _names(_GROUP_TYPES[group]) + (list(registry.own_settings()) if group == "residual" else [])
    if name not in names:
        raise LabError(f"no key '{shown(name)}' in group '{group}'; {nearest(name, names)}")


def _option(group: str, name: str, config_dir: Path | None) -> dict[str, Any]:
    files = options(group, config_dir)
    if name in files:
        return {key: _of_file(files[name], group, key, value) for key, value in _settings(files[name]).items()}
    variants = registry.variants() if group == "residual" else []
    if name in variants:
        return {"variant": name}
    raise LabError(f"{group}={shown(name)}: no such option; {nearest(name, {*files, *variants})}")


def _settings(file: Path) -> dict[str, Any]:
    return read_yaml(file, as_written=True)


def _of_file(file: Path, group: str, key: Any, value: Any) -> Any:
    """A value of an option's file, read by its field's type as one that is typed."""
    try:
        check_key(f"{group}.{key}")
        text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True, width=2**20).strip()
        return parse(f"{group}.{key}", text)
    except LabError as error:
        raise LabError(f"{file}: {error}") from error


def _check_residual(residual: ResidualConfig, own: Set[str], shared: Set[str]) -> None:
    """Refuse settings that the variant lacks where they were given for this run; reset them where they are shared."""
    variant = registry.variant(residual.variant)
    for name in residual.constraints:
        registry.constraint(name)
    accepted = variant.accepted_fields(residual)
    defaults = ResidualConfig()
    fields = {*_names(ResidualConfig), *registry.own_settings()}
    for name in sorted((own & fields) - accepted):
        having = [v for v in registry.variants() if name in registry.variant(v).accepted_fields(defaults)]
        has = ", ".join(sorted(accepted - {"variant"}))
        raise LabError(
            f"residual.{name}: variant '{variant.name}' has no {name}; it has {has} "
            f"(variants with {name}: {', '.join(having)})"
        )
    for name in (shared & set(_names(ResidualConfig))) - accepted:
        setattr(residual, name, getattr(defaults, name))
    brought = variant.own_fields(residual)
    residual.own = {name: residual.own.get(name, default_of(field)) for name, field in brought.items()}
    for name, field in brought.items():
        check_domain(f"residual.{name}", residual.own[name], field)


def _check_together(config: RunConfig) -> None:
    """What no single field can tell."""
    model, data, trainer = config.model, config.data, config.trainer
    if model.dim % model.heads or (model.dim // model.heads) % 2:
        raise LabError(f"model.heads={model.heads}: model.dim={model.dim} must split into heads of even size (RoPE)")
    if data.source == "text" and not data.files:
        raise LabError("data=text needs data.files, for example data.files='[~/books/*.txt]'")
    ranks = trainer.devices * trainer.num_nodes
    if data.batch_size % ranks:
        raise LabError(f"data.batch_size={data.batch_size} is global: it must be a multiple of {ranks} devices")
    if ranks > 1 and trainer.strategy == "auto":
        raise LabError("trainer.devices > 1 needs a strategy: trainer=ddp or trainer=fsdp2")


def _absolute(key: str, path: str) -> str:
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError as error:
        raise LabError(f"{key}: {path}: no such user") from error


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    return f"{key}: {lines[0]}" if key else lines[0]
