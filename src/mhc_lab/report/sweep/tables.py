"""The tables of a sweep as people read them."""

from __future__ import annotations

from mhc_lab.report.stats import paired_gap
from mhc_lab.report.sweep import words
from mhc_lab.report.sweep.data import Sweep, SweepTrial, value_text
from mhc_lab.report.sweep.importance import SHUFFLES, Importances
from mhc_lab.report.sweep.marginal import marginal
from mhc_lab.report.sweep.ranking import best_of_each, edges, estimate, non_dominated, rank
from mhc_lab.report.sweep.table import Table
from mhc_lab.report.texts import BLANK, decimal, p_value, with_interval

BEST = 10


def best_table(sweep: Sweep) -> Table:
    """The 10 best trials, and the starting point if it is not among them; with `by`, the best of each of its values."""
    if sweep.by:
        return _best_by(sweep)
    ranking = rank(sweep)
    if ranking is None:
        return Table(f"Best trials: {sweep.title}", (), "", [], [nothing(sweep)])
    shown = list(ranking.trials[:BEST])
    shown += [one for one in ranking.trials[BEST:] if one.trial is ranking.start]
    places = {one.trial.number: place for place, one in enumerate(ranking.trials, start=1)}
    heads = [
        "place",
        "trial",
        *(sweep.names[parameter.key] for parameter in sweep.parameters),
        "seeds",
        sweep.objectives[0].text,
        "minus the best",
        "p (Holm)",
        "minus the start",
        "p (Holm)",
    ]
    start = ranking.start
    rows = [
        [
            str(places[one.trial.number]),
            f"{one.trial.number}{' (start)' if one.trial is start else ''}",
            *_params(sweep, one.trial),
            str(one.estimate.n or BLANK),
            with_interval(one.estimate.mean, one.estimate.half_width),
            "0" if one is ranking.best else words.gap_text(one.to_best, one.p_best),
            _p(one.p_best),
            "0" if one.trial is start else words.gap_text(one.to_start, one.p_start),
            _p(one.p_start),
        ]
        for one in shown
    ]
    title = f"Best {min(BEST, len(ranking.trials))} of {len(ranking.trials)} comparable trials: {sweep.title}"
    if len(ranking.trials) == 1:
        title = f"The one comparable trial: {sweep.title}"
    align = "rl" + "r" * (len(heads) - 2)
    return _without_empty(Table(title, tuple(heads), align, rows, words.of_best(sweep, ranking), bold=0))


def nothing(sweep: Sweep) -> str:
    return f"No trial is complete with a finite {sweep.objectives[0].name}: {sweep.state_words()}."


def _best_by(sweep: Sweep) -> Table:
    ranking, metric = rank(sweep), sweep.objectives[0].metric
    others = [parameter for parameter in sweep.parameters if parameter.key != sweep.by]
    name = sweep.names[sweep.by]
    heads = [name, "trial", *(sweep.names[p.key] for p in others), "seeds", sweep.objectives[0].text]
    heads += ["minus the best", "minus its start", "trials", "at the edge"]
    rows: list[list[str]] = []
    warnings: list[str] = []
    for choice, trial in best_of_each(sweep).items():
        own = [one for one in sweep.trials if one.params.get(sweep.by) == choice]
        comparable = sum(one.finite for one in own)
        if trial is None:
            rows.append([value_text(choice), *[BLANK] * (len(heads) - 3), f"0 of {len(own)}", ""])
            warnings.append(f"{value_text(choice)}: no comparable trial.")
            continue
        assert ranking is not None
        found = estimate(sweep, trial)
        start = next((one for one in own if one.enqueued), None)
        from_start = paired_gap(trial.seeds(metric), start.seeds(metric)) if start and start.finite else None
        best = ranking.best.trial
        to_best = paired_gap(trial.seeds(metric), best.seeds(metric))
        at = edges(sweep, trial)
        rows.append(
            [
                value_text(choice),
                str(trial.number),
                *(_param(trial, parameter.key) for parameter in others),
                str(found.n or BLANK),
                with_interval(found.mean, found.half_width),
                "0" if trial is best else words.gap_text(to_best, None),
                "0" if trial is start else words.gap_text(from_start, None),
                f"{comparable} of {len(own)}",
                ", ".join(sweep.names[p.key] for p in at),
            ]
        )
        if at:
            what = words.listed_edges(sweep, trial, at)
            warnings.append(f"{value_text(choice)}: its best lies at the edge of the space ({what}): widen it there.")
    notes = [
        words.seeds(sweep),
        f"The best trial of each {name}. The differences are paired by seed and not tested: both trials were chosen.",
        *warnings,
    ]
    align = "ll" + "r" * (len(heads) - 3) + "l"
    return _without_empty(Table(f"Best trial of each {name}: {sweep.title}", tuple(heads), align, rows, notes))


def pareto_table(sweep: Sweep) -> Table:
    """The trials that nothing beats in all objectives."""
    front = non_dominated(sweep)
    texts = [objective.text for objective in sweep.objectives]
    title = f"Pareto front: {sweep.title}"
    if not front:
        return Table(title, (), "", [], [nothing(sweep)])
    rows = []
    for trial in front:
        found = [estimate(sweep, trial, number) for number in range(len(texts))]
        values = [with_interval(one.mean, one.half_width) for one in found]
        start = " (start)" if trial is sweep.start else ""
        rows.append([f"{trial.number}{start}", *_params(sweep, trial), str(found[0].n or BLANK), *values])
    heads = ("trial", *(sweep.names[p.key] for p in sweep.parameters), "seeds", *texts)
    notes = [
        words.seeds(sweep),
        f"{len(front)} of {len(sweep.finite)} comparable trials are beaten by no other in "
        f"{' and '.join(objective.name for objective in sweep.objectives)}, by their means: intervals that overlap may "
        "hide another order.",
    ]
    on_edge = [f"trial {t.number} ({words.listed_edges(sweep, t, at)})" for t in front if (at := edges(sweep, t))]
    notes += [f"At the edge of the space: {'; '.join(on_edge)}."] if on_edge else []
    return Table(title, heads, "l" + "r" * (len(heads) - 1), rows, notes)


def importance_table(sweep: Sweep, found: Importances, objective: int = 0) -> Table:
    text = sweep.objectives[objective].name
    title = f"What the {text} depends on: {sweep.title}"
    if found.none:
        return Table(title, (), "", [], [f"No importances: {found.none}."])
    rows = [
        [
            sweep.names[one.parameter.key],
            one.parameter.words,
            decimal(one.fanova, 2) + ("*" if one.fanova > one.fanova_chance else ""),
            f"{decimal(one.low, 2)} to {decimal(one.high, 2)}",
            decimal(one.fanova_chance, 2),
            decimal(one.ped_anova, 2) + ("*" if one.ped_anova > one.ped_anova_chance else ""),
            decimal(one.ped_anova_chance, 2),
            str(one.trials),
        ]
        for one in found.parameters
    ]
    alone = 1 - sum(one.fanova for one in found.parameters)
    everywhere = len({one.trials for one in found.parameters}) == 1
    diverged = sum(trial.diverged for trial in sweep.trials)
    notes = [
        "fANOVA: share of the variance over the space that the parameter explains alone, by random forests; mean and "
        "range over 5 seeds of the forest, which are not its whole error."
        + (f" The other {decimal(max(alone, 0), 2)} is interactions and noise." if everywhere else ""),
        f"PED-ANOVA: share of what sets the best {found.top} trials apart from the rest; it looks at the good end, "
        "fANOVA at the whole space, bad corners first. Where they disagree, believe neither blindly.",
        f"By chance: what the share stays below in {SHUFFLES - 1} of {SHUFFLES} shufflings of the {text} among the "
        "trials; *: above that. A share that is not says nothing: where a sampler looked often, chance gives much.",
        "A log range counts as its logarithm, as it was searched.",
        f"Of {len(sweep.trials)} trials, the complete and finite ones that have the parameter enter"
        + (f"; {diverged} diverged and do not." if diverged else "."),
    ]
    if found.seen < len(sweep.finite):
        notes.append(f"The forests see {found.seen} of the {len(sweep.finite)} trials, evenly over the search.")
    if not everywhere:
        notes.append("A parameter that is asked for only under a condition is judged on the trials that have it.")
    notes += [f"Without a number: {line}." for line in found.left_out]
    heads = ("parameter", "space", "fANOVA", "5 forests", "by chance", "PED-ANOVA", "by chance", "trials")
    return Table(title, heads, "llrrrrrr", rows, notes)


def marginal_table(sweep: Sweep) -> Table:
    """Every objective by what each parameter was."""
    title = f"Each parameter's values: {sweep.title}"
    if not sweep.finite:
        return Table(title, (), "", [], [nothing(sweep)])
    every = [marginal(sweep, objective) for objective in range(len(sweep.objectives))]
    rows = []
    for bins in zip(*every, strict=True):
        row = [sweep.names[bins[0].parameter.key], bins[0].text, str(bins[0].estimate.n)]
        for one in bins:
            row += [with_interval(one.estimate.mean, one.estimate.half_width), decimal(one.lowest, 4)]
        rows.append(row)
    heads = ["parameter", "value", "trials"]
    for objective in sweep.objectives:
        heads += [f"mean {objective.text}", "lowest"]
    notes = [
        "Mean over the comparable trials in the bin ± half width of its 95 % t interval over trials.",
        "What the trials of a bin have else differs, and a sampler looks more where it is good: a lower mean is a "
        "hint, not an effect. Compare the lowest too.",
    ]
    return Table(title, tuple(heads), "ll" + "r" * (len(heads) - 2), rows, notes)


def _params(sweep: Sweep, trial: SweepTrial) -> list[str]:
    return [_param(trial, parameter.key) for parameter in sweep.parameters]


def _param(trial: SweepTrial, key: str) -> str:
    return value_text(trial.params[key]) if key in trial.params else BLANK


def _p(p: float | None) -> str:
    return BLANK if p is None else p_value(p)


def _without_empty(table: Table) -> Table:
    """Without the columns that say nothing in any row."""
    kept = [place for place in range(len(table.heads)) if any(row[place] not in ("", BLANK) for row in table.rows)]
    return Table(
        table.title,
        tuple(table.heads[place] for place in kept),
        "".join(table.align[place] for place in kept),
        [[row[place] for place in kept] for row in table.rows],
        table.words,
        table.bold,
    )
