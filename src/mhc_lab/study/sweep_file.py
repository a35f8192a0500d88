"""Sweep files -> what an Optuna study searches, and how. Torch-free, Optuna-free.

# mhc-lab sweep mysweep
title: What the sweep is to tell
overrides: [residual=mhc, trainer.max_steps=300]     # fixed, the same in every trial
space: {residual.t_max: {int: [1, 40], log: true}}   # space.py
objectives: [val_loss]                               # one or two metrics of a run, all minimised
sampler: {name: tpe, seed: 0}                        # tpe, gp, qmc, nsga2 or grid, with their arguments
pruner: {name: hyperband, min_steps: 50}             # hyperband, wilcoxon or none
trials: 40
seeds: [0, 1, 2]                                     # of each trial; its value is the mean
enqueue: [{residual.t_max: 20}]                      # points to begin with
by: residual                                         # `ablate --tuned`: the best point for each value of this parameter
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mhc_lab.config.compose import check_key, check_typed, compose, find_file, load_named_plugin, packaged, read_yaml
from mhc_lab.config.run_id import run_id
from mhc_lab.config.schema import RunConfig
from mhc_lab.data.corpus import corpus_fingerprint
from mhc_lab.errors import LabError, nearest, shown
from mhc_lab.report.frame import METRICS
from mhc_lab.study.keys import known_keys, override_list, refuse_seed, refuse_unread, seed_list
from mhc_lab.study.narrow import narrowed
from mhc_lab.study.space import Parameter, Point, check_point, corners, grid, override, parse_space

_KEYS = ("title", "overrides", "space", "objectives", "sampler", "pruner", "trials", "seeds", "enqueue", "by")
_MOST_TRIALS = 100_000  # a slip of the keyboard

# What is not given is pinned here, and stored with the study: Optuna's own defaults change between versions.
SAMPLERS: Mapping[str, Mapping[str, Any]] = {
    "tpe": {"n_startup_trials": 10, "n_ei_candidates": 24, "multivariate": True, "group": True, "constant_liar": True},
    "gp": {"n_startup_trials": 10, "deterministic_objective": False},
    "qmc": {"qmc_type": "sobol", "scramble": True},
    "nsga2": {"population_size": 16, "mutation_prob": None, "crossover_prob": 0.9, "swapping_prob": 0.5},
    "grid": {},
}
PRUNERS: Mapping[str, Mapping[str, Any]] = {
    "hyperband": {"min_steps": 50, "factor": 3},
    "wilcoxon": {"p_threshold": 0.1, "n_startup_steps": 2},
    "none": {},
}
_COUNTS = {"n_startup_trials": 0, "n_startup_steps": 0, "n_ei_candidates": 1, "population_size": 2}  # and their least
_PARTS = ("mutation_prob", "crossover_prob", "swapping_prob", "p_threshold")
_SEEDS_END = 2**32  # NumPy's generators take no larger ones
_SEQUENCES = ("sobol", "halton")
_OBJECTIVES = tuple(metric for metric in METRICS if metric not in ("tokens_per_second", "steps", "stream_spread"))


@dataclass(frozen=True)
class SweepSpec:
    """A sweep file resolved. `overrides` are the fixed ones, the command line's last."""

    name: str
    origin: str
    title: str
    overrides: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    objectives: tuple[str, ...]
    sampler: Mapping[str, Any]  # "name", "seed" and its arguments
    pruner: Mapping[str, Any]  # "name" and its arguments
    trials: int
    seeds: tuple[int, ...]
    enqueue: tuple[Point, ...]
    by: str
    config_dir: Path | None
    content: Mapping[str, Any]  # of the file, for the workers: `resolve_sweep` makes the same of it

    def config(self, point: Mapping[str, Any], seed: int | None = None) -> RunConfig:
        """The configuration of a point. Raises LabError where it cannot be built."""
        own = [override(key, value) for key, value in point.items()]
        composed = compose(own, shared=self._shared(), config_dir=self.config_dir)
        return composed if seed is None else dataclasses.replace(composed, seed=seed)

    @cached_property
    def base(self) -> RunConfig:
        """The configuration of the first corner: what says where runs go and what they are tracked with."""
        return self.config(next(corners(self.parameters)))

    @cached_property
    def corners(self) -> tuple[tuple[Point, str], ...]:
        """The edges of the space (`space.corners`) with their run ids. Raises LabError for one that cannot be run."""
        found = []
        for point in corners(self.parameters):
            try:
                config = self.config(point)
            except LabError as error:
                varied = ", ".join(f"{key}={value}" for key, value in point.items())
                raise LabError(f"the space holds {varied}, which cannot be run: {error}") from error
            steps = config.trainer.max_steps
            if self.pruner["name"] == "hyperband" and self.pruner["min_steps"] >= steps:
                least = self.pruner["min_steps"]
                raise LabError(f"pruner: min_steps={least} must be below trainer.max_steps={steps}")
            found.append((point, run_id(config, corpus_fingerprint(config))))
        return tuple(found)

    @property
    def starting_points(self) -> list[Point]:
        """The points to begin with; of a grid, all."""
        return grid(self.parameters) if self.sampler["name"] == "grid" else list(self.enqueue)

    def _shared(self) -> list[str]:
        """Hyperband looks at a run every `min_steps`: the validations are its questions."""
        judged = [f"trainer.val_every={self.pruner['min_steps']}"] if self.pruner["name"] == "hyperband" else []
        return [*self.overrides, *judged]


def load_sweep(
    name_or_path: str,
    *,
    trials: int | None = None,
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    config_dir: Path | None = None,
) -> SweepSpec:
    """Resolve a sweep of ./sweeps or the shipped ones, or a file of one's own.

    `trials` and `seeds` replace those of the file; `overrides` come after the file's, and narrow the space where they
    speak of it (`narrow.py`). Every edge of the space is composed: raises LabError for anything that could not be run,
    and for anything wrong in the file.
    """
    file = find_file(name_or_path, sweeps(), "sweep")
    content = read_yaml(file)
    if trials is not None:
        content["trials"] = trials
    if seeds is not None:
        content["seeds"] = list(seeds)
    load_named_plugin([*override_list(content.get("overrides"), f"{file}: overrides"), *overrides])
    content, fixed = narrowed(content, overrides, str(file))
    check_typed(fixed)
    content["overrides"] = [*override_list(content.get("overrides"), f"{file}: overrides"), *fixed]
    spec = resolve_sweep(content, name=file.stem, origin=name_or_path, where=str(file), config_dir=config_dir)
    try:
        _check_effects(spec)
    except LabError as error:
        raise LabError(f"{file}: {error}") from error
    refuse_unread(spec.overrides, [spec.config(point) for point in corners(spec.parameters)], str(file), "trial")
    return spec


def resolve_sweep(
    content: dict[str, Any], *, name: str, origin: str, where: str, config_dir: Path | None = None
) -> SweepSpec:
    """The sweep that a file's content describes. Raises LabError; the space's edges are not composed."""
    known_keys(content, _KEYS, where)
    overrides = override_list(content.get("overrides"), f"{where}: overrides")
    for text in overrides:
        refuse_seed(text, "sweep")
    parameters = parse_space(content.get("space"), f"{where}: space")
    for parameter in parameters:
        refuse_seed(f"{parameter.key}=", "sweep")
        # A study may be read where nobody named the plugin that brings its settings.
        if not (
            parameter.key.startswith("residual.") and any(text.startswith("residual.plugin=") for text in overrides)
        ):
            try:
                check_key(parameter.key)
            except LabError as error:
                raise LabError(f"{where}: space: {error}") from error
        if any(text.partition("=")[0] == parameter.key for text in overrides):
            raise LabError(f"{where}: {parameter.key} is fixed by overrides and varied by the space: keep one of them")
    objectives = _objectives(content.get("objectives", ["val_loss"]), where)
    sampler = _named(content.get("sampler", {"name": "tpe"}), SAMPLERS, f"{where}: sampler", extra=("seed",))
    pruner = _named(content.get("pruner", {"name": "none"}), PRUNERS, f"{where}: pruner")
    seeds = seed_list(content.get("seeds", [0]), where)
    _check_pruner(pruner, objectives, seeds, parameters, where)
    enqueue = content.get("enqueue") or []
    if not isinstance(enqueue, list):
        raise LabError(f"{where}: enqueue must be a list of points")
    by = str(content.get("by", ""))
    if by and not any(parameter.key == by and parameter.kind == "choices" for parameter in parameters):
        raise LabError(f"{where}: by={by} must name a parameter with choices")
    return SweepSpec(
        name=name,
        origin=origin,
        title=str(content.get("title", name)),
        overrides=overrides,
        parameters=parameters,
        objectives=objectives,
        sampler=sampler,
        pruner=pruner,
        trials=_trials(content.get("trials"), sampler, parameters, where),
        seeds=seeds,
        enqueue=tuple(check_point(point, parameters, f"{where}: enqueue") for point in enqueue),
        by=by,
        config_dir=config_dir,
        content=content,
    )


def sweeps() -> dict[str, Path]:
    """The sweep files by name: ./sweeps, then the shipped ones."""
    found: dict[str, Path] = {}
    for directory in (Path("sweeps"), packaged("sweeps")):
        for file in sorted(directory.glob("*.yaml")):
            found.setdefault(file.stem, file)
    return found


def _check_effects(spec: SweepSpec) -> None:
    """Refuse what cannot be searched: values that all share one run would be reported as worth the same."""
    for parameter in spec.parameters:
        runs: dict[Any, set[str]] = defaultdict(set)
        for point, found in spec.corners:
            if parameter.key in point and _at_first_edges(point, spec, parameter):
                runs[point[parameter.key]].add(found)
        if len(runs) > 1 and all(ids == next(iter(runs.values())) for ids in runs.values()):
            raise LabError(
                f"space: {parameter.key} is no part of what a run is: all its values would share one run; "
                "fix it with overrides (mhc-lab bench measures what such settings cost)"
            )


def _at_first_edges(point: Point, spec: SweepSpec, but: Parameter) -> bool:
    """Whether every range other than `but` stands at its first edge."""
    return all(
        point[parameter.key] == parameter.edges()[0]
        for parameter in spec.parameters
        if parameter.kind != "choices" and parameter.key in point and parameter is not but
    )


def _objectives(content: Any, where: str) -> tuple[str, ...]:
    if not isinstance(content, list) or len(content) not in (1, 2) or len(set(map(str, content))) < len(content):
        raise LabError(f"{where}: objectives must be one or two metrics, for example [val_loss, ms_per_step]")
    for metric in content:
        if metric == "tokens_per_second":
            raise LabError(f"{where}: objectives are minimised: take ms_per_step instead of tokens_per_second")
        if metric not in _OBJECTIVES:
            raise LabError(
                f"{where}: objectives: no metric '{metric}' to minimise; {nearest(str(metric), _OBJECTIVES)}"
            )
    return tuple(content)


def _named(
    content: Any, table: Mapping[str, Mapping[str, Any]], where: str, extra: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A sampler or pruner by name with all its arguments, the pinned ones where the file gives none."""
    if isinstance(content, str):
        content = {"name": content}
    name = str(content.get("name") if isinstance(content, dict) else content)
    if not isinstance(content, dict) or name not in table:
        raise LabError(f"{where}: no '{shown(name)}'; {nearest(name, table)}")
    pinned = table[content["name"]]
    for key in content:
        if key not in ("name", *extra, *pinned):
            raise LabError(f"{where}: {content['name']} has no '{key}'; {nearest(str(key), [*pinned, *extra])}")
    for key in pinned:
        _check_argument(key, content.get(key, pinned[key]), pinned[key], f"{where}: {content['name']}")
    if content.get("group", pinned.get("group")) and not content.get("multivariate", pinned["multivariate"]):
        raise LabError(f"{where}: {content['name']}: group needs multivariate: give group: false too")
    seed = {"seed": content.get("seed", 0)} if extra else {}
    if seed and (type(seed["seed"]) is not int or not 0 <= seed["seed"] < _SEEDS_END):
        raise LabError(f"{where}: seed must be a whole number from 0 to {_SEEDS_END - 1}")
    return {"name": content["name"], **seed, **{key: content.get(key, value) for key, value in pinned.items()}}


def _check_argument(key: str, value: Any, pinned: Any, where: str) -> None:
    """Optuna would refuse these too, but in the workers."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(pinned, bool) and not isinstance(value, bool):
        raise LabError(f"{where}: {key} must be true or false")
    if key in _COUNTS and not (number and isinstance(value, int) and value >= _COUNTS[key]):
        raise LabError(f"{where}: {key} must be a whole number from {_COUNTS[key]}")
    if key in _PARTS and value != pinned and not (number and 0 <= value <= 1):
        raise LabError(f"{where}: {key} must be a number from 0 to 1")
    if key == "qmc_type" and value not in _SEQUENCES:
        raise LabError(f"{where}: {key} must be {' or '.join(_SEQUENCES)}")


def _check_pruner(
    pruner: Mapping[str, Any],
    objectives: Sequence[str],
    seeds: Sequence[int],
    parameters: Sequence[Parameter],
    where: str,
) -> None:
    name = pruner["name"]
    if name == "none":
        return
    if list(objectives) != ["val_loss"]:
        raise LabError(
            f"{where}: pruner: {name} judges by val_loss: it must be the one objective, or take pruner: none"
        )
    if name == "wilcoxon":
        _check_wilcoxon(pruner, len(seeds), where)
    if name == "hyperband":
        if len(seeds) > 1:
            raise LabError(f"{where}: pruner: hyperband judges the steps of one run: give one seed, or take wilcoxon")
        if any(parameter.key == "trainer.max_steps" for parameter in parameters):
            raise LabError(f"{where}: pruner: hyperband needs one trainer.max_steps for all trials")
        for key in ("min_steps", "factor"):
            if not isinstance(pruner[key], int) or pruner[key] < (1 if key == "min_steps" else 2):
                raise LabError(f"{where}: pruner: {key} must be a whole number, min_steps from 1 and factor from 2")


def _check_wilcoxon(pruner: Mapping[str, Any], seeds: int, where: str) -> None:
    """It is asked after every seed but the last; of k pairs the least p of its one-sided test is 2^-k."""
    threshold = pruner["p_threshold"]
    wanted = next((k for k in range(max(2, pruner["n_startup_steps"]), 64) if 0.5**k < threshold), None)
    if wanted is None or seeds <= wanted:
        mend = f"give at least {wanted + 1} seeds" if wanted else "raise p_threshold"
        raise LabError(f"{where}: pruner: wilcoxon at p_threshold={threshold:g} never prunes by {seeds} seeds: {mend}")


def _trials(content: Any, sampler: Mapping[str, Any], parameters: tuple[Parameter, ...], where: str) -> int:
    if content is not None and (isinstance(content, bool) or not isinstance(content, int) or content < 1):
        raise LabError(f"{where}: trials must be a whole number, at least 1")
    if sampler["name"] == "grid":
        size = len(grid(parameters))
        if content is not None and content != size:
            raise LabError(f"{where}: the grid has {size} points: leave trials out, or give {size}")
        content = size
    if content is None:
        raise LabError(f"{where}: trials: how many? Give it in the file or as --trials 40")
    if content > _MOST_TRIALS:
        raise LabError(f"{where}: trials={content}: more than {_MOST_TRIALS}")
    return int(content)
