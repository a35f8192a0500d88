"""What grid and sweep files have in common: their keys, seeds and overrides. Torch-free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mhc_lab.config.reading import unread
from mhc_lab.config.schema import MAX_SEED, RunConfig
from mhc_lab.errors import LabError, nearest, shown
from mhc_lab.residual import registry


def typed(overrides: Sequence[str], workers: int | None, tracking_uri: str | None) -> list[str]:
    """The overrides of a command, those of its options among them."""
    if workers is not None and workers < 1:
        raise LabError(f"--workers {workers}: must be at least 1")
    options = [f"launcher.workers={workers}"] if workers is not None else []
    options += [f"tracking.uri={tracking_uri}"] if tracking_uri is not None else []
    return [*overrides, *options]


def known_keys(content: dict[str, Any], known: Sequence[str], where: str) -> None:
    for key in content:
        if key not in known:
            raise LabError(f"{where}: no key '{shown(str(key))}'; {nearest(str(key), known)}")


def override_list(content: Any, where: str) -> tuple[str, ...]:
    if content is None:
        return ()
    if not isinstance(content, list) or not all(isinstance(override, str) for override in content):
        raise LabError(f"{where} must be a list of group=option or a.b=value")
    return tuple(content)


def refuse_seed(override: str, kind: str = "grid") -> None:
    if override.partition("=")[0] == "seed":
        raise LabError(f"{override}: the seeds of a {kind} are given with --seeds, or in its file as seeds: [...]")


def refuse_unread(shared: Sequence[str], configs: Sequence[RunConfig], where: str, what: str) -> None:
    """LabError for a shared override of a setting that no row or point (`what`) reads."""
    for text in shared:
        key = text.partition("=")[0]
        reasons = [_unread(config, key) for config in configs]
        if "." in key and all(reasons):
            raise LabError(f"{where}: no {what} reads {key}: {reasons[0]}")


def _unread(config: RunConfig, key: str) -> str:
    group, _, name = key.partition(".")
    if group == "residual":
        variant = registry.variant(config.residual.variant)
        if name not in variant.accepted_fields(config.residual):
            return f"variant '{variant.name}' has no {name}"
    return unread(config, key)


def seed_list(seeds: Any, where: str) -> tuple[int, ...]:
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        raise LabError(
            f"{where}: seeds: {seeds} must be a list: [{seeds}] is the one seed {seeds}, [0, 1, 2] are three"
        )
    if not isinstance(seeds, list) or not seeds:
        raise LabError(f"{where}: seeds must be a list of at least one seed; give --seeds 0,1,2,3,4")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
            raise LabError(f"seed {shown(repr(seed))}: seeds are whole numbers from 0 to {MAX_SEED}")
    twice = next((seed for seed, count in Counter(seeds).items() if count > 1), None)
    if twice is not None:
        raise LabError(f"seed {twice} is given twice: each seed is one run a row")
    return tuple(seeds)
