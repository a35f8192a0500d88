"""What a reader must know beneath the table of the best trials."""

from __future__ import annotations

from collections.abc import Sequence

from mhc_lab.report.stats import ALPHA, MIN_SEEDS, PairedGap
from mhc_lab.report.sweep.data import Parameter, Sweep, SweepTrial, count, value_text
from mhc_lab.report.sweep.ranking import Ranking, edges, rank
from mhc_lab.report.texts import BLANK, p_text, with_interval


def of_best(sweep: Sweep, ranking: Ranking) -> list[str]:
    """Seeds and tests, the starting point, how many trials tie with the best, selection, and the edge of the space."""
    best = ranking.best.trial
    return [
        seeds(sweep),
        _ties(sweep, ranking),
        _start(sweep, ranking),
        *([_selection(ranking)] if len(ranking.trials) > 1 else []),
        edge_words(sweep, best, f"trial {best.number}"),
    ]


def verdict(sweep: Sweep) -> str:
    """The answer in words: the best point, whether it is told apart from the start, or why there is none."""
    ranking = rank(sweep)
    if ranking is None:
        return f"No trial has a finite {sweep.objectives[0].name}: {sweep.state_words()}."
    best = ranking.best
    point = ", ".join(f"{sweep.names[key]} {value_text(given)}" for key, given in best.trial.params.items())
    found = with_interval(best.estimate.mean, best.estimate.half_width)
    text = f"Best: trial {best.trial.number} with {point}: {sweep.objectives[0].text} {found}."
    if len(ranking.trials) == 1:
        return text
    if not ranking.compared:
        return f"{text} No other trial could be tested against it."
    if not ranking.told_apart:
        return f"{text} No other trial can be told from it."
    if ranking.told_apart == ranking.compared:
        return f"{text} Every other trial is worse."
    return f"{text} {ranking.compared - ranking.told_apart} of {ranking.compared} other trials cannot be told from it."


def seeds(sweep: Sweep) -> str:
    text = f"Trials: {sweep.state_words()}. Seeds of each: {', '.join(map(str, sweep.seeds))}."
    if len(sweep.seeds) >= MIN_SEEDS:
        return f"{text} ±: half width of the 95 % t interval over seeds; of a difference, the paired one."
    return f"{text} With fewer than {MIN_SEEDS} seeds there is no interval and no test."


def gap_text(gap: PairedGap | None, p: float | None) -> str:
    """−0.012 ± 0.004, with * where it is told apart from 0."""
    if gap is None:
        return BLANK
    if gap.identical:
        return "identical"
    star = "*" if p is not None and p < ALPHA else ""
    return with_interval(gap.estimate.mean, gap.estimate.half_width, sign=True) + star


def edge_words(sweep: Sweep, trial: SweepTrial, what: str) -> str:
    """Whether a trial lies at the edge of the space, and what to do then."""
    at = edges(sweep, trial)
    if not at:
        return f"{what.capitalize()} does not lie at an edge of the space."
    return f"{what.capitalize()} lies at the edge of the space ({listed_edges(sweep, trial, at)}): widen it there."


def listed_edges(sweep: Sweep, trial: SweepTrial, at: Sequence[Parameter]) -> str:
    return ", ".join(f"{sweep.names[p.key]} = {value_text(trial.params[p.key])} of {p.words}" for p in at)


def _ties(sweep: Sweep, ranking: Ranking) -> str:
    if len(ranking.trials) == 1:
        return "One comparable trial: nothing to compare it with."
    if not ranking.compared:
        few = len(sweep.seeds) < MIN_SEEDS
        why = f"it takes {MIN_SEEDS} seeds" if few else "no seeds in common, or the same difference in all of them"
        return f"No trial could be tested against the best: {why}."
    tied = ranking.compared - ranking.told_apart
    tested = f"{ranking.compared} tested against it"
    return (
        f"Not told apart from the best: {tied} of the {tested} (paired t, Holm over these, p < {ALPHA}); *: told apart."
    )


def _start(sweep: Sweep, ranking: Ranking) -> str:
    start = sweep.start
    if start is None:
        return "No starting point was enqueued."
    if not start.finite:
        how = "diverged" if start.diverged else start.state
        return f"The starting point, trial {start.number}, has no finite value ({how})."
    if start is ranking.best.trial:
        return f"The starting point, trial {start.number}, is the best."
    gap = ranking.best.to_start
    if gap is None:
        return f"The starting point is trial {start.number}; it has no seed in common with the best."
    where = next(place for place, one in enumerate(ranking.trials, start=1) if one.trial is start)
    test = ""
    if gap.p is not None:
        assert ranking.best.p_start is not None
        test = f" (paired, p {p_text(gap.p)}; Holm over all trials {p_text(ranking.best.p_start)})"
    return (
        f"The starting point is trial {start.number}, place {where} of {len(ranking.trials)}; the best minus it: "
        f"{with_interval(gap.estimate.mean, gap.estimate.half_width, sign=True)}{test}."
    )


def _selection(ranking: Ranking) -> str:
    text = "The best of many trials is optimistic: the seeds that chose it also measure it"
    if ranking.optimism:
        text += (
            f"; were all {count(len(ranking.trials), 'trial')} equally good, the lowest mean would still lie about "
            f"{abs(ranking.optimism):.2g} below the truth"
        )
    return f"{text}. Repeat it beside the starting point with fresh seeds before quoting the difference."
