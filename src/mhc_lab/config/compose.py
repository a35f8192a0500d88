"""Groups and overrides in Hydra's spelling (`group=option a.b=value`) -> RunConfig, or LabError with the fix."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import mhc_lab
from mhc_lab.config.schema import GROUPS, ResidualConfig, RunConfig, check_domains
from mhc_lab.errors import LabError, nearest
from mhc_lab.residual import registry

_TOP_KEYS = tuple(f.name for f in dataclasses.fields(RunConfig) if f.name not in GROUPS)
_GROUP_TYPES = {f.name: f.default_factory for f in dataclasses.fields(RunConfig) if f.name in GROUPS}


class _UniqueKeys(yaml.SafeLoader):
    """YAML would let the last of two rows of one name win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def packaged(folder: str) -> Path:
    """`conf` or `sweeps` as shipped: inside the wheel, or at the top of a source tree."""
    inside = Path(mhc_lab.__file__).parent / f"_{folder}"
    return inside if inside.is_dir() else Path(mhc_lab.__file__).parents[2] / folder


def config_dirs(config_dir: Path | None = None) -> list[Path]:
    """Where configuration is looked up, first match wins: --config-dir, ./conf, the packaged one."""
    if config_dir is not None and not config_dir.is_dir():
        raise LabError(f"--config-dir {config_dir}: no such folder")
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
            raise LabError(f"{name_or_path}: no such {kind} file")
        return path
    if name_or_path not in known:
        raise LabError(f"no {kind} '{name_or_path}'; {nearest(name_or_path, known)}")
    return known[name_or_path]


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, or LabError with the line where it goes wrong."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except yaml.YAMLError as error:
        raise LabError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"{path}: cannot be read: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise LabError(f"{path}: must be a mapping of keys to values")
    return content


def compose(overrides: Sequence[str] = (), *, shared: Sequence[str] = (), config_dir: Path | None = None) -> RunConfig:
    """Resolve a run's configuration.

    Order, later wins: dataclass defaults, the variant's defaults, the options of config.yaml, `shared`, `overrides`.
    A `residual` key that the variant does not have is an error in `overrides` and is dropped from `shared`
    (what all rows of a grid share may not concern each of them).
    """
    chosen = _defaults(config_dir)
    values: list[tuple[str, Any, bool]] = []  # key, value, whether it is shared
    for text, is_shared in [*((s, True) for s in shared), *((o, False) for o in overrides)]:
        key, value = _split(text)
        if key in GROUPS:
            chosen[key] = value
        else:
            check_key(key)
            values.append((key, _parse(key, value), is_shared))
    given = {key: value for key, value, _ in values}
    _load_plugin(given.get("residual.plugin"))  # first: it may bring the variant that a group names
    layers = {group: _option(group, name, config_dir) for group, name in chosen.items()}
    residual = layers["residual"]
    if "residual.plugin" not in given:
        _load_plugin(residual.get("plugin"))
    variant = registry.variant(str(given.get("residual.variant", residual.get("variant", "mhc"))))
    try:
        config = OmegaConf.merge(OmegaConf.structured(RunConfig), {"residual": dict(variant.defaults)}, layers)
        for key, value, _ in values:
            OmegaConf.update(config, key, value, merge=False)
        resolved = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise LabError(_one_line(error)) from error
    assert isinstance(resolved, RunConfig)
    own = {*residual, *(key.removeprefix("residual.") for key, _, is_shared in values if not is_shared)}
    shared_keys = {key.removeprefix("residual.") for key, _, is_shared in values if is_shared}
    _check_residual(resolved.residual, own, shared_keys)
    check_domains(resolved)
    registry.check_write(resolved.residual)
    registry.check_sinkhorn(resolved.residual)
    _check_together(resolved)
    # A run folder is opened from anywhere: its paths must not hang on where the command was given.
    resolved.data.files = [_absolute("data.files", file) for file in resolved.data.files]
    if resolved.residual.plugin:
        resolved.residual.plugin = _absolute("residual.plugin", resolved.residual.plugin)
    return resolved


def residual_config(variant: str, settings: Mapping[str, Any]) -> ResidualConfig:
    """The residual settings of one variant, checked as `compose` checks them; LabError for what it would refuse."""
    entry = registry.variant(variant)
    known = [f.name for f in dataclasses.fields(ResidualConfig)]
    for name in settings:
        if name not in known:
            raise LabError(f"no setting '{name}'; {nearest(name, known)}")
    try:
        given: dict[str, Any] = {**entry.defaults, **settings, "variant": variant}
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
    """A RunConfig from a plain mapping (a run folder's config.yaml)."""
    try:
        resolved = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), content))
    except OmegaConfBaseException as error:
        raise LabError(f"{origin}: {_one_line(error)}") from error
    assert isinstance(resolved, RunConfig)
    return resolved


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


def _load_plugin(path: Any) -> None:
    if path:
        registry.load_plugin(_absolute("residual.plugin", str(path)))


def _split(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise LabError(f"'{text}': an override is written group=option or a.b=value")
    return key, value


def check_key(key: str) -> None:
    """LabError, with the nearest name, for what is no setting (a.b) and no group."""
    if key in GROUPS:
        return
    group, dot, name = key.partition(".")
    if not dot:
        if group not in _TOP_KEYS:
            raise LabError(f"no key or group '{group}'; {nearest(group, [*GROUPS, *_TOP_KEYS])}")
        return
    if group not in GROUPS:
        raise LabError(f"no group '{group}' (in {key}); {nearest(group, GROUPS)}")
    names = [f.name for f in dataclasses.fields(_GROUP_TYPES[group])]  # type: ignore[arg-type]
    if name not in names:
        raise LabError(f"no key '{name}' in group '{group}'; {nearest(name, names)}")


def _parse(key: str, value: str) -> Any:
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise LabError(f"{key}={value}: not a value") from error
    if isinstance(parsed, str):
        try:
            return float(parsed) if parsed.lower() != "infinity" else parsed  # YAML 1.1 reads 1e-3 as a string
        except ValueError:
            return parsed
    return parsed


def _option(group: str, name: str, config_dir: Path | None) -> dict[str, Any]:
    files = options(group, config_dir)
    if name in files:
        return read_yaml(files[name])
    variants = registry.variants() if group == "residual" else []
    if name in variants:
        return {"variant": name}
    raise LabError(f"{group}={name}: no such option; {nearest(name, {*files, *variants})}")


def _check_residual(residual: ResidualConfig, own: Set[str], shared: Set[str]) -> None:
    """Refuse settings that the variant lacks where they were given for this run; reset them where they are shared."""
    variant = registry.variant(residual.variant)
    for name in residual.constraints:
        registry.constraint(name)
    accepted = variant.accepted_fields(residual)
    defaults = ResidualConfig()
    fields = {f.name for f in dataclasses.fields(ResidualConfig)}
    for name in sorted((own & fields) - accepted):
        having = [v for v in registry.variants() if name in registry.variant(v).accepted_fields(defaults)]
        has = ", ".join(sorted(accepted - {"variant"}))
        raise LabError(
            f"residual.{name}: variant '{variant.name}' has no {name}; it has {has} "
            f"(variants with {name}: {', '.join(having)})"
        )
    for name in (shared & fields) - accepted:
        setattr(residual, name, getattr(defaults, name))


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
