"""The lines under a table: what it lacks, how to read its gaps and its columns."""

from __future__ import annotations

from collections.abc import Sequence

from mhc_lab.report import stats
from mhc_lab.report.frame import Study
from mhc_lab.report.provenance import mixture_lines, mixtures
from mhc_lab.report.summary import Best, Power, Summary
from mhc_lab.report.texts import p_text, with_interval
from mhc_lab.run_folder import ENDED

BUSY = 1.5  # load a core of the minute before; workers that have just ended leave about 1


def warnings(study: Study) -> list[str]:
    """What a reader must know before the table: cells without a result, baselines without a loss, mixed runs."""
    lines = []
    missing = study.cells[~study.cells["status"].isin(ENDED)]
    if not missing.empty:
        counts = ", ".join(f"{count} {status}" for status, count in missing["status"].value_counts().items())
        rows = ", ".join(dict.fromkeys(missing["row"]))
        lines.append(f"{len(missing)} of {len(study.cells)} cells have no result ({counts}), in rows {rows}")
    for baseline in study.baselines:
        if not (study.row_cells(baseline)["status"] == "finished").any():
            lines.append(f"the baseline {baseline} has no finished run: no gaps to it")
    timing = study.timing or {}
    load, cores = timing.get("load", 0.0), timing.get("cores", 1)
    if load > BUSY * cores:
        lines.append(
            f"the machine was busy before the rows were timed (load {load:.1f} on {cores} cores): times are "
            "not to be relied on"
        )
    return lines + mixture_lines(mixtures(study))


def legend(study: Study, summary: Summary) -> list[str]:
    """How to read the losses and gaps."""
    seeds = ", ".join(map(str, sorted(study.cells["seed"].unique())))
    against = study.baseline if len(study.baselines) == 1 else "the row it is measured against"
    tested = f"{len(summary.tested)} row{'' if len(summary.tested) == 1 else 's'}"
    return [
        f"Seeds: {seeds}; the column counts those that finished. Losses in nats per token.",
        *_tuned(study),
        f"Loss gap: row − {against}, averaged over paired seeds. ±: half width of the 95 % t interval "
        f"(for the gap, the paired one), from {stats.MIN_SEEDS} seeds on.",
        *(
            [f"*: distinguishable from {against}: paired t test, Holm-adjusted over {tested}, p < {stats.ALPHA}."]
            if summary.tested
            else [f"No row is tested against {against}: that takes {stats.MIN_SEEDS} seeds."]
        ),
        *_other_tests(summary),
        *_claims(summary, against),
        *(
            _best(best, f" of those measured from {baseline}" if len(study.baselines) > 1 else "")
            for baseline, best in summary.best.items()
        ),
        *_floors(study, summary),
        *([_power(summary.power)] if summary.power else []),
    ]


def _tuned(study: Study) -> list[str]:
    """What sweeps found best for the rows of `ablate --tuned`."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in study.rows:
        if tuned := row.get("tuned"):
            seeds = ", ".join(map(str, tuned["seeds"]))
            settings = ", ".join(tuned["overrides"]) or "nothing that it does not set itself"
            found.setdefault((tuned["sweep"], seeds), {}).setdefault(settings, []).append(row["row"])
    return [
        f"Tuned: what the sweep {sweep} found best on seeds {seeds}: "
        + "; ".join(f"{settings} for {', '.join(rows)}" for settings, rows in by_settings.items())
        + "."
        for (sweep, seeds), by_settings in found.items()
    ]


def details(study: Study) -> list[str]:
    """How to read the other columns."""
    timing = "as measured in the training runs, which may have shared the machine; no timing pass"
    if study.timing:
        timing = "from a timing pass, row and baseline alternating in one process; ×: median ratio to the baseline"
        timed = ((study.timed(row["row"]), row["baseline"]) for row in study.rows)
        if any(entry and entry["baseline"] != baseline for entry, baseline in timed):
            timing += ", or the quotient of two where both alternated with a third row"
    return [
        "✓ dynamic (per token), (✓) static (learned, the same for all tokens), blank fixed (H_res = I, H_pre = 1/n, "
        "H_post = ones).",
        "Gain: the paper's Amax gain magnitude, forward (row sums) / backward (column sums), the largest over layers; "
        "composite: of the product up to the output, the largest over start layers. Means over the finished seeds.",
        "max ‖∇‖: the largest finite gradient norm before clipping, over all steps and seeds. Spikes: loss spikes, "
        "mean per run. Both count diverged runs too.",
        f"Time: {timing}; ±: half of what the middle half of the pairs spans. Memory: peak; from "
        "the smallest to the largest over the seeds, on a CPU the growth of the process.",
    ]


def _other_tests(summary: Summary) -> list[str]:
    lines = []
    if summary.frame["p_sign_flip"].notna().any():
        lines.append(
            f"p (sign flips): permutation test of the paired differences, from {stats.MIN_SIGN_FLIP_SEEDS} seeds on, "
            "not adjusted."
        )
    if summary.frame["loss_gap_bca95_low"].notna().any():
        lines.append(
            f"BCa: bootstrap interval of the paired gap, from {stats.MIN_BCA_SEEDS} seeds on: called 95 %, "
            "nearer 90 % with few."
        )
    return lines


def _claims(summary: Summary, against: str) -> list[str]:
    if summary.margin is None:
        return []
    return [
        f"Within ±{summary.margin:g}: equivalent where two one-sided paired t tests (TOST) put the gap to {against} "
        f"inside the margin, no worse where one puts it below +{summary.margin:g}; Holm-adjusted, p < {stats.ALPHA}."
    ]


def _best(best: Best, among: str) -> str:
    line = f"Bold: {best.row}, the lowest loss gap{among}"
    lead = with_interval(-best.lead.estimate.mean, best.lead.estimate.half_width)
    p = f", p {p_text(best.lead.p)}, not adjusted" if best.lead.p is not None else ""
    return f"{line}; ahead of the next, {best.runner_up}, by {lead} (paired{p})."


def _floors(study: Study, summary: Summary) -> list[str]:
    lines = []
    for baseline in study.baselines:
        control, floor = study.control_of(baseline), summary.noise_floors.get(baseline)
        of = f" of gaps to {baseline}" if len(study.baselines) > 1 else ""
        if control is None:
            lines.append(f"Noise floor{of}: not measured (no control arm).")
        elif floor is None:
            lines.append(f"Noise floor{of}: not measured ({control} has no finished seed in common with its design).")
        else:
            arms = f"|{control} − {study.design_of(control)}|"
            lines.append(f"Noise floor{of}: {floor:.4f}, the largest {arms} over the seeds.")
    return lines


def _power(power: Power) -> str:
    level = f"p < {stats.ALPHA}" + (f"/{power.tests}" if power.tests > 1 else "")
    lines = [f"as the rows' paired differences do (median SD {power.sd:.3g}): {_seeds(power.gaps, power.seeds)}"]
    if power.control_sd is not None:
        lines.append(f"as the control arm does (SD {power.control_sd:.3g}): {_seeds(power.gaps, power.control_seeds)}")
    return (
        f"Seeds needed, roughly, to tell a gap from noise with {100 * stats.POWER:g} % power (paired t, {level}), "
        "if it scatters " + "; ".join(lines) + "."
    )


def _seeds(gaps: Sequence[float], seeds: Sequence[int | None]) -> str:
    counts = ("over 10,000" if count is None else f"{count:,}" for count in seeds)
    return ", ".join(f"{gap:g} takes {count}" for gap, count in zip(gaps, counts, strict=True))
