"""Generated sweeps whose truth is known: the loss is a parabola in log t_max, with a seed effect and noise."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from mhc_lab.report.sweep import Objective, Parameter, Sweep, SweepTrial

T_MAX = Parameter("residual.t_max", "int", 1, 40, log=True)
STREAMS = Parameter("residual.streams", "choices", choices=(2, 4, 8))
ALPHA = Parameter("residual.alpha_init", "float", 0.001, 1.0, log=True)
SINKHORN = Parameter("residual.sinkhorn", "choices", choices=("plain", "warm", "newton"))
CONVENTION = Parameter("residual.convention", "choices", choices=("eq9", "v4"), when={"residual.sinkhorn": ("plain",)})
RATE = Parameter("optim.lr", "float", 1e-4, 1e-1, log=True)
VARIANT = Parameter("residual", "choices", choices=("identity", "hc", "mhc"))
BEST_T_MAX = 10


def truth(params: dict[str, Any]) -> float:
    """Lowest at t_max = 10; alpha matters little, streams less, the others nothing."""
    loss = 2.5
    loss += 0.10 * math.log(params.get("residual.t_max", BEST_T_MAX) / BEST_T_MAX) ** 2
    loss += 0.004 * math.log(params.get("residual.alpha_init", 0.01) / 0.01) ** 2
    loss -= 0.01 * math.log2(params.get("residual.streams", 4))
    best_rate = {"identity": 1e-3, "hc": 5e-3, "mhc": 1e-1}.get(params.get("residual", ""), 3e-3)
    return loss + 0.05 * math.log(params.get("optim.lr", best_rate) / best_rate) ** 2


def draw_params(parameters: tuple[Parameter, ...], rng: np.random.Generator) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for p in parameters:
        if not all(params.get(key) in allowed for key, allowed in p.when.items()):
            continue
        if p.kind == "choices":
            params[p.key] = p.choices[rng.integers(len(p.choices))]
            continue
        assert p.low is not None and p.high is not None
        at = rng.uniform(math.log(p.low), math.log(p.high)) if p.log else rng.uniform(p.low, p.high)
        drawn = math.exp(at) if p.log else at
        params[p.key] = round(drawn) if p.kind == "int" else drawn
    return params


def trial(
    number: int, params: dict[str, Any], *, seeds: int = 3, noise: float = 0.004, time: bool = False, **rest: Any
) -> SweepTrial:
    rng = np.random.default_rng(1000 + number)
    by_seed = {}
    for seed in range(seeds):
        loss = truth(params) + 0.05 * math.sin(7 * seed) + noise * rng.standard_normal()
        ms = (
            20
            + params.get("residual.t_max", 10) * 0.5
            + params.get("residual.streams", 4)
            + 0.3 * rng.standard_normal()
        )
        by_seed[seed] = {"val_loss": loss, "ms_per_step": ms}
    names = ("val_loss", "ms_per_step") if time else ("val_loss",)
    values = tuple(float(np.mean([metrics[name] for metrics in by_seed.values()])) for name in names)
    given = {
        "state": "complete",
        "values": values,
        "by_seed": by_seed,
        "started": "2026-01-01T00:00:00",
        "seconds": 9.0,
    }
    return SweepTrial(number=number, params=params, **{**given, **rest})


def lost(number: int, params: dict[str, Any], state: str) -> SweepTrial:
    """A trial without a value: diverged, pruned, failed, running."""
    if state == "diverged":
        return SweepTrial(number, "complete", params, (math.inf,))
    steps = {10 * step: 4.0 - 0.1 * step for step in range(1, 4)} if state == "pruned" else {}
    reason = "RuntimeError: out of memory | 100% of x_y" if state == "failed" else ""
    return SweepTrial(number, state, params, intermediate=steps, reason=reason)  # type: ignore[arg-type]


def sweep(trials: list[SweepTrial], parameters: tuple[Parameter, ...] = (T_MAX, ALPHA, STREAMS), **rest: Any) -> Sweep:
    given: dict[str, Any] = {
        "name": "sinkhorn",
        "title": "How many Sinkhorn iterations, 100% of {n} & H_res",
        "command": "mhc-lab sweep sinkhorn",
        "objectives": (Objective("val_loss"),),
        "seeds": (0, 1, 2),
        "overrides": ("model=nano",),
        "sampler": {"name": "tpe", "seed": 0},
        "pruner": {},
        "budget": 40,
    }
    return Sweep(parameters=parameters, trials=tuple(trials), **{**given, **rest})


def usual(
    count: int = 40, parameters: tuple[Parameter, ...] = (T_MAX, ALPHA, STREAMS), start: bool = True, **rest: Any
) -> Sweep:
    """Random trials after the paper's point (t_max 20, alpha .01, n 4)."""
    rng = np.random.default_rng(0)
    about = {key: rest.pop(key) for key in ("seeds", "noise", "time") if key in rest}
    paper = {
        "residual.t_max": 20,
        "residual.alpha_init": 0.01,
        "residual.streams": 4,
        "residual.sinkhorn": "plain",
        "residual.convention": "eq9",
        "optim.lr": 3e-3,
    }
    first = {p.key: paper[p.key] for p in parameters if p.key in paper}
    trials = [trial(0, first, enqueued=True, **about)] if start else []
    trials += [trial(n, draw_params(parameters, rng), **about) for n in range(len(trials), count)]
    if about.get("time"):
        rest["objectives"] = (Objective("val_loss"), Objective("ms_per_step"))
    if "seeds" in about:
        rest["seeds"] = tuple(range(about["seeds"]))
    return sweep(trials, parameters, **rest)


def with_lost(base: Sweep) -> Sweep:
    """Beside two diverged, four pruned, a failed and a running trial; the complete ones reported to the pruner too."""
    rng = np.random.default_rng(5)
    states = ["diverged"] * 2 + ["pruned"] * 4 + ["failed", "running"]
    more = [lost(len(base.trials) + n, draw_params(base.parameters, rng), s) for n, s in enumerate(states)]
    told = [
        dataclasses.replace(t, intermediate={10 * s: (t.values or (0,))[0] + 2 / s for s in range(1, 9)})
        for t in base.trials
    ]
    return dataclasses.replace(base, trials=(*told, *more))


def by_variant(count: int = 36) -> Sweep:
    """Learning rates for three variants; mhc's truth lies at the upper edge."""
    rng = np.random.default_rng(3)
    parameters = (VARIANT, RATE)
    trials = [trial(n, {"residual": v, "optim.lr": 3e-3}, enqueued=True) for n, v in enumerate(VARIANT.choices)]
    trials += [trial(n, draw_params(parameters, rng)) for n in range(3, count)]
    trials.append(trial(count, {"residual": "mhc", "optim.lr": 0.1}))
    return sweep(trials, parameters, by="residual", name="rates", title="A learning rate for each variant")


def odd() -> dict[str, Sweep]:
    """Everything that a sweep should not be, by name."""
    points = [draw_params((T_MAX, ALPHA, STREAMS), np.random.default_rng(n)) for n in range(12)]
    huge = [dataclasses.replace(trial(n, p), values=(1e6 * n + 3.0,), by_seed={}) for n, p in enumerate(points[:3])]
    constant = [
        dataclasses.replace(trial(n, p), values=(2.5,), by_seed={s: {"val_loss": 2.5} for s in range(3)})
        for n, p in enumerate(points)
    ]
    categorical = (SINKHORN, VARIANT)
    return {
        "no trials": sweep([]),
        "one trial": sweep([trial(0, points[0])]),
        "two trials": sweep([trial(n, points[n]) for n in range(2)]),
        "all failed": sweep([lost(n, p, "failed") for n, p in enumerate(points)]),
        "all diverged": sweep([lost(n, p, "diverged") for n, p in enumerate(points)]),
        "only pruned": sweep([lost(n, p, "pruned") for n, p in enumerate(points)]),
        "constant objective": sweep(constant),
        "same point": sweep([trial(n, points[0]) for n in range(10)]),
        "conditional": usual(40, (T_MAX, SINKHORN, CONVENTION)),
        "categorical only": usual(20, categorical, start=False),
        "one parameter": usual(12, (T_MAX,)),
        "one seed": usual(20, seeds=1),
        "huge losses": sweep([*(trial(n + 3, p) for n, p in enumerate(points)), *huge]),
        "no by_seed": sweep([dataclasses.replace(trial(n, p), by_seed={}) for n, p in enumerate(points)]),
        "start diverged": sweep(
            [dataclasses.replace(lost(0, points[0], "diverged"), enqueued=True), trial(1, points[1])]
        ),
        "two objectives, nothing": sweep([], objectives=(Objective("val_loss"), Objective("ms_per_step"))),
        "three objectives": dataclasses.replace(
            sweep([]), objectives=tuple(map(Objective, ("val_loss", "ms_per_step", "peak_memory_mb")))
        ),
        "by, one missing": dataclasses.replace(by_variant(3), trials=by_variant(3).trials[:2]),
    }
