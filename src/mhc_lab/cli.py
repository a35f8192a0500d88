"""The verbs of `mhc-lab`. Each imports its work when it is called, so that --help answers at once; no logic here."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mhc_lab.errors import (
    EXIT_BUG,
    EXIT_INPUT,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_RUNS_FAILED,
    Interrupted,
    LabError,
    RunsFailed,
    shown,
)

if TYPE_CHECKING:
    from mhc_lab.config import RunConfig
    from mhc_lab.run_folder import RunFolder
    from mhc_lab.study.folder import StudyFolder

MANY_SEEDS = 10_000  # in one range: a slip of the keyboard
_UsageError: Any = typer.BadParameter.__mro__[1]  # click's own, or that of the copy inside newer typers

app = typer.Typer(
    help="Ablations of residual connections: train variants, compare them fairly, export the table.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Overrides = Annotated[list[str] | None, typer.Argument(help="group=option or a.b=value", show_default=False)]
Results = Annotated[Path, typer.Option(help="Folder of runs, studies and tables.")]
ConfigDir = Annotated[Path | None, typer.Option(help="Looked up before ./conf and the packaged configuration.")]
TrackingUri = Annotated[str | None, typer.Option(help="MLflow server or database; default: an sqlite file in results.")]
Storage = Annotated[
    str | None, typer.Option(help="Optuna storage URL of the study; default: an sqlite file in results.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Explain = Annotated[bool, typer.Option("--explain", help="Print what the columns mean.")]
TrustPlugin = Annotated[
    bool, typer.Option("--trust-plugin", help="Run the plugin that lies with the run or study, whatever it holds.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


def _version(wanted: bool) -> None:
    if wanted:
        from mhc_lab import __version__

        typer.echo(f"mhc-lab {__version__}")
        raise typer.Exit


NAMING = ("check", "train", "ablate", "sweep", "list", "doctor")  # verbs whose overrides and files may name code


@app.callback()
def _common(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Ablations of residual connections: train variants, compare them fairly, export the table."""
    from mhc_lab.machine import check_backend
    from mhc_lab.residual.registry import restrict_plugins

    assert not version, "it has been printed"
    check_backend()
    restrict_plugins(context.invoked_subcommand not in NAMING)


@app.command()
def train(
    overrides: Overrides = None,
    results: Results = Path("results"),
    config_dir: ConfigDir = None,
    tracking_uri: TrackingUri = None,
    dry_run: DryRun = False,
    rerun: Annotated[bool, typer.Option("--rerun", help="Run again what has a result.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Take a result that other code made.")] = False,
) -> None:
    """Train one run.

    Example: mhc-lab train residual=mhc model=nano. What there is to choose from: mhc-lab list.
    """
    from mhc_lab.config import compose
    from mhc_lab.config.run_id import run_id
    from mhc_lab.data.corpus import corpus_fingerprint
    from mhc_lab.run_folder import RunFolder, runs_dir

    if rerun and keep:
        raise LabError("--rerun and --keep exclude each other")
    for text in overrides or []:
        key = text.partition("=")[0]
        if key.partition(".")[0] == "launcher":
            raise LabError(f"{shown(key)}: a run has no workers of its own; it is a setting of ablate and sweep")
    tracked = [f"tracking.uri={tracking_uri}"] if tracking_uri else []
    config = compose([*(overrides or []), *tracked], config_dir=config_dir)
    fingerprint = corpus_fingerprint(config)
    folder = RunFolder(runs_dir(results) / run_id(config, fingerprint))
    if dry_run:
        _show_plan(folder, config)
        return
    if folder.ended() and not rerun:
        _check_code(folder, keep)
        typer.echo(f"{folder.run_id} has a result already; --rerun makes it again")
    elif not _train(results, config, fingerprint):
        return
    _show(folder)
    record = folder.record()
    if record is not None and record["status"] == "diverged":
        raise RunsFailed(f"{folder.run_id} diverged: {record['reason']}")


@app.command()
def ablate(
    grid: Annotated[str, typer.Argument(help="Name of a grid, or a grid file.", show_default=False)],
    overrides: Overrides = None,
    seeds: Annotated[str | None, typer.Option(help="0,1,2 or 0-4; default: those of the grid.")] = None,
    workers: Annotated[int | None, typer.Option(help="Runs at once on this machine.")] = None,
    study: Annotated[str | None, typer.Option(help="Name of the study; default: that of the grid.")] = None,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    results: Results = Path("results"),
    config_dir: ConfigDir = None,
    dry_run: DryRun = False,
    rerun: Annotated[bool, typer.Option("--rerun", help="Run again what other code made.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Take results that other code made.")] = False,
    tuned: Annotated[
        str | None, typer.Option(help="A sweep whose best point each row takes, for example learning_rate.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="What stands above the table; default: the grid's.")] = None,
) -> None:
    """Run a grid of variants and print its table.

    The same command again resumes it. Example: mhc-lab ablate table1 --seeds 0-4. The grids: mhc-lab list.
    """
    from mhc_lab.study.engine import ablate

    ablate(
        grid,
        seeds=parse_seeds(seeds) if seeds is not None else None,
        overrides=overrides or [],
        study=study,
        workers=workers,
        storage=storage,
        tracking_uri=tracking_uri,
        results=results,
        config_dir=config_dir,
        dry_run=dry_run,
        rerun=rerun,
        keep=keep,
        tuned=tuned,
        title=title,
    )


@app.command()
def sweep(
    name: Annotated[str, typer.Argument(help="Name of a sweep, or a sweep file.", show_default=False)],
    overrides: Overrides = None,
    trials: Annotated[int | None, typer.Option(help="How many points; default: those of the sweep.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Of each trial, 0,1,2 or 0-4; default: those of the sweep.")] = None,
    workers: Annotated[int | None, typer.Option(help="Trials at once on this machine.")] = None,
    study: Annotated[str | None, typer.Option(help="Name of the study; default: that of the sweep.")] = None,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    results: Results = Path("results"),
    config_dir: ConfigDir = None,
    dry_run: DryRun = False,
    rerun: Annotated[bool, typer.Option("--rerun", help="Run again what other code made.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Go on with trials and runs of other code.")] = False,
) -> None:
    """Search for the best settings with Optuna.

    The same command again resumes it. An override of a setting that the sweep varies narrows the search: a,b of its
    choices, low..high of a range. Example: mhc-lab sweep sinkhorn --trials 40 --workers 2. The sweeps: mhc-lab list.
    """
    from mhc_lab.study.sweep import sweep

    sweep(
        name,
        trials=trials,
        seeds=parse_seeds(seeds) if seeds is not None else None,
        overrides=overrides or [],
        study=study,
        workers=workers,
        storage=storage,
        tracking_uri=tracking_uri,
        results=results,
        config_dir=config_dir,
        dry_run=dry_run,
        rerun=rerun,
        keep=keep,
    )


@app.command()
def worker(
    study: Annotated[str, typer.Argument(help="Name of a study that ablate or sweep has begun.", show_default=False)],
    storage: Storage = None,
    trust_plugin: TrustPlugin = False,
    results: Results = Path("results"),
) -> None:
    """Add a worker to a study, here or on another machine."""
    from mhc_lab.study.worker import work

    work(results, study, storage=storage, trust_plugin=trust_plugin)


@app.command("list")
def list_(
    what: Annotated[
        str | None,
        typer.Argument(
            help="grids, sweeps, variants, constraints, options, settings, or a group of settings, as residual.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    config_dir: ConfigDir = None,
) -> None:
    """List grids, sweeps, variants, models and settings.

    --json prints an object of lists, by kind: name, words, and of settings default and values. Example: mhc-lab list
    residual shows every setting of a connection, with its default, its values and what it means.
    """
    import json

    from mhc_lab.config.listing import entries, kinds, print_entries

    overview = [kind for kind in kinds(config_dir) if kind != "settings" or as_json]
    found = {kind: entries(kind, config_dir) for kind in ([what] if what is not None else overview)}
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for kind, listed in found.items():
        print_entries(kind, listed, typer.echo)
    if what is None:
        typer.echo("settings: mhc-lab list settings, or those of a group: mhc-lab list residual")


@app.command()
def status(
    study: Annotated[str | None, typer.Argument(help="Name of a study.", show_default=False)] = None,
    as_json: Json = False,
    results: Results = Path("results"),
) -> None:
    """Say how far a study is; without a name, all studies.

    --json prints an object (study, kind, title, done, total, and cells or trials), or a list of them. Single runs:
    mhc-lab runs.
    """
    import dataclasses
    import json

    from mhc_lab.study.overview import overviews, print_overviews, study_data
    from mhc_lab.study.status import status

    if study is not None:
        if as_json:
            typer.echo(json.dumps(study_data(results, study), indent=1))
        else:
            status(results, study)
        return
    found = overviews(results)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
    elif found:
        print_overviews(found)
    else:
        typer.echo(f"no study in {results}; single runs: mhc-lab runs")


@app.command()
def runs(
    names: Annotated[list[str] | None, typer.Argument(help="Runs, by id; default: all.", show_default=False)] = None,
    status: Annotated[
        str | None, typer.Option(help="Only finished, diverged, failed, waiting, running or damaged ones.")
    ] = None,
    unused: Annotated[bool, typer.Option("--unused", help="Only runs that no study uses.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the folders of these runs.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before removing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Remove runs that a study uses, too.")] = False,
    as_json: Json = False,
    results: Results = Path("results"),
) -> None:
    """List single runs with their size and studies; remove some.

    --json prints a list of objects: run_id, status, variant, seed, val_loss, ended, size (bytes), studies.
    Example: mhc-lab runs --status failed,waiting --unused --remove
    """
    from mhc_lab import runs as lab_runs
    from mhc_lab.units import size

    wanted = [name.strip() for name in status.split(",")] if status else []
    everything = not (names or wanted or unused)
    warn = None if remove or unused else _warn
    picked = lab_runs.chosen(results, names or [], wanted, unused=unused, warn=warn)
    if remove and everything:
        raise LabError("--remove: say which: run ids, --status failed, or --unused")
    if as_json:
        typer.echo(lab_runs.as_json(picked))
    else:
        lab_runs.print_runs(picked)
    if remove and picked:
        if not yes and not typer.confirm(f"remove {len(picked)} folders for good?"):
            return
        freed = lab_runs.remove(results, picked, force=force)
        typer.echo(f"{len(picked)} runs removed, {size(freed)} free", err=True)


@app.command()
def export(
    studies: Annotated[list[str], typer.Argument(help="Studies; of several, one table.", show_default=False)],
    formats: Annotated[
        str | None,
        typer.Option("--format", help="Any of md, latex, csv (tables), svg, png (figures), html (one page)."),
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Row to measure gaps from; default: that of the grid.")] = None,
    margin: Annotated[
        float | None, typer.Option(help="Test for equivalence within this margin, and for no worse (nats per token).")
    ] = None,
    gap: Annotated[
        list[float] | None, typer.Option(help="Say how many seeds tell this gap from noise (nats per token).")
    ] = None,
    columns: Annotated[
        str, typer.Option(help="md, latex: these columns only, as val_loss,loss_gap: the names are table.csv's.")
    ] = "",
    notes: Annotated[str, typer.Option(help="md, latex: full, short (no more than the legend) or none.")] = "full",
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if a cell has no result.")] = False,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Take runs of different corpora or code together.")
    ] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Show the page in a browser.")] = False,
    storage: Annotated[str | None, typer.Option(help="Of a sweep: its Optuna URL, if it holds a password.")] = None,
    results: Results = Path("results"),
) -> None:
    """Write tables, figures and a page into the study's folder.

    Example: mhc-lab export table1 --format md,html --open
    """
    from mhc_lab.command import command_line
    from mhc_lab.report.tables import FORMATS, export
    from mhc_lab.study.folder import StudyFolder

    chosen = None if formats is None else [name.strip() for name in formats.split(",")]
    if open_page and chosen is not None and "html" not in chosen:
        raise LabError("--open shows the page: add html to --format")
    if len(studies) == 1 and StudyFolder(results, studies[0]).is_sweep():
        of_grids = {"--baseline": baseline, "--margin": margin, "--gap": gap or None, "--strict": strict or None}
        of_grids |= {"--columns": columns or None, "--notes": None if notes == "full" else notes}
        of_grids |= {"--allow-mixed": allow_mixed or None}
        if given := [name for name, value in of_grids.items() if value is not None]:
            raise LabError(f"{', '.join(given)}: for grids; sweep '{studies[0]}' takes --format, --open and --storage")
        _export_sweep(StudyFolder(results, studies[0]), chosen, storage, open_page)
        return
    done = export(
        results,
        studies,
        chosen or FORMATS,
        baseline=baseline,
        margin=margin,
        **({"gaps": gap} if gap else {}),
        columns=[name.strip() for name in columns.split(",") if name.strip()],
        notes=notes,  # type: ignore[arg-type]  # checked there
        allow_mixed=allow_mixed,
        command=command_line(),
    )
    for path in done.paths:
        typer.echo(path)
    for line in done.absent:
        typer.echo(f"not drawn: {line}")
    for line in done.warnings:
        _warn(line)
    if open_page:
        _open(next(path for path in done.paths if path.suffix == ".html"))
    if strict and not done.complete:
        raise RunsFailed("some cells have no result, and --strict asks for all of them")


@app.command()
def sync(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Folders made elsewhere; default: all of results.", show_default=False)
    ] = None,
    tracking_uri: TrackingUri = None,
    results: Results = Path("results"),
) -> None:
    """Send MLflow what it has missed."""
    from mhc_lab.tracking.sync import sync

    done = sync(results, tracking_uri, paths or [])
    typer.echo(f"{done.runs} runs looked at, {done.sent} of them had something to send to {', '.join(done.uris)}")


@app.command()
def bench(
    what: Annotated[str, typer.Argument(help="ops, step, memory, correctness, sizes or day.", show_default=False)],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dims: Annotated[str, typer.Option(help="Widths of a stream, as 1280,2560; default: what fits the device.")] = "",
    tokens: Annotated[str, typer.Option(help="ops: numbers of tokens, as 4096,8192.")] = "",
    streams: Annotated[int, typer.Option(help="Streams, n.")] = 4,
    t_max: Annotated[int, typer.Option(help="Sinkhorn iterations.")] = 20,
    dtype: Annotated[str, typer.Option(help="Of the streams: fp32, bf16 or fp16; default: bf16 on a GPU.")] = "",
    rounds: Annotated[int, typer.Option(help="Rounds in which implementations take turns; step: pairs.")] = 0,
    threads: Annotated[int, typer.Option(help="Of the CPU; default: its cores.")] = 0,
    cases: Annotated[str, typer.Option(help="ops: some operations only, as write,write_read.")] = "",
    rivals: Annotated[str | None, typer.Option(help="Some rivals only, as eager,liger; '' for none.")] = None,
    variants: Annotated[str, typer.Option(help="step: some variants only, as mhc,hc.")] = "",
    compiled: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="step: under torch.compile too; default: on a GPU.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Seconds rather than minutes: small, few rounds.")] = False,
    append: Annotated[bool, typer.Option("--append", help="ops, correctness: keep what earlier runs did.")] = False,
    minutes: Annotated[float, typer.Option(help="day: when it ends, wherever it is.")] = 10,
    results: Annotated[Path, typer.Option("--results", "--out", help="Folder of results.")] = Path("results"),
) -> None:
    """Time operations, training steps and whole models; measure memory; judge operations against fp64.

    Writes into results/bench. `day` does all of it and a study, in as many minutes as there are. Example:
    mhc-lab bench ops --quick
    """
    from mhc_lab.bench.command import bench
    from mhc_lab.bench.options import Options, numbers, words

    bench(
        Options(
            what,
            device=device,
            dims=numbers(dims),
            tokens=numbers(tokens),
            streams=streams,
            t_max=t_max,
            dtype=dtype,
            rounds=rounds,
            threads=threads,
            cases=words(cases),
            rivals=None if rivals is None else words(rivals),
            variants=words(variants),
            compile=compiled,
            quick=quick,
            append=append,
            minutes=minutes,
            results=results,
        )
    )


@app.command()
def sinkhorn(
    checkpoint: Annotated[
        Path | None, typer.Option(help="A run's folder: study the logits that its model makes; default: drawn ones.")
    ] = None,
    streams: Annotated[int, typer.Option(help="Drawn logits: streams, n.")] = 4,
    logit_std: Annotated[float, typer.Option(help="Drawn logits: standard deviation.")] = 1.0,
    layers: Annotated[int, typer.Option(help="Drawn logits: layers that gains are composed over.")] = 60,
    t_max: Annotated[int, typer.Option(help="Largest number of iterations.")] = 40,
    bound: Annotated[float, typer.Option(help="What the 99.9 % composite gain shall not exceed.")] = 1.05,
    matrices: Annotated[
        int, typer.Option(help="Tokens, each with one matrix a layer; default: what takes seconds.")
    ] = 0,
    windows: Annotated[int, typer.Option(help="Of --checkpoint: validation windows to take logits from.")] = 4,
    algorithms: Annotated[
        str, typer.Option(help="Any of plain,log,overrelaxed,newton,warm,permutations,kronecker; default: all.")
    ] = "",
    dtype: Annotated[str, typer.Option(help="Any of float32,bfloat16,mixed; default: all.")] = "",
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    name: Annotated[
        str, typer.Option(help="Folder in results/sinkhorn-analysis; default: says what was studied.")
    ] = "",
    explain: Explain = False,
    trust_plugin: TrustPlugin = False,
    results: Results = Path("results"),
) -> None:
    """Say which t_max a model needs, without training.

    Example: mhc-lab sinkhorn --checkpoint results/runs/<run>
    """
    _trust(trust_plugin)
    from mhc_lab.analysis.sinkhorn_command import Options
    from mhc_lab.analysis.sinkhorn_command import sinkhorn as analysis

    analysis(
        Options(
            checkpoint=checkpoint,
            streams=streams,
            logit_std=logit_std,
            layers=layers,
            t_max=t_max,
            bound=bound,
            matrices=matrices,
            windows=windows,
            algorithms=algorithms,
            dtype=dtype,
            seed=seed,
            name=name,
            explain=explain,
            results=results,
        )
    )


@app.command()
def retarget(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", show_default=False)],
    t_max: Annotated[str, typer.Option(help="Iterations to try; default: 1,2,3,5,8,13,20,40.")] = "",
    algorithms: Annotated[
        str, typer.Option(help="Any of plain,log,overrelaxed,newton,warm; default: the run's own.")
    ] = "",
    dtype: Annotated[str, typer.Option(help="Of the Sinkhorn: any of float32,bfloat16,mixed; default: all.")] = "",
    tolerance: Annotated[
        float, typer.Option(help="A loss within so many nats per token of the trained model's counts as kept.")
    ] = 0.001,
    explain: Explain = False,
    trust_plugin: TrustPlugin = False,
    results: Results = Path("results"),
) -> None:
    """Evaluate a trained run with another t_max or fewer mixers.

    Example: mhc-lab retarget results/runs/<run> --t-max 1,3,20
    """
    _trust(trust_plugin)
    from mhc_lab.analysis.retarget_command import retarget as evaluation

    evaluation(run, t_max, algorithms, dtype, results, tolerance, explain, say=lambda line: typer.echo(line, err=True))


@app.command()
def doctor(results: Results = Path("results"), config_dir: ConfigDir = None, tracking_uri: TrackingUri = None) -> None:
    """Check this installation and this machine; try kernels, a database and a worker, in about half a minute.

    Exit code 2 if something must be mended.
    """
    from mhc_lab.doctor import examine

    findings = list(examine(results, config_dir, tracking_uri, say=lambda finding: typer.echo(finding.line)))
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(EXIT_INPUT)


@app.command()
def check(
    what: Annotated[str, typer.Argument(help="A plugin file, or a variant's name.", show_default=False)],
    overrides: Overrides = None,
) -> None:
    """Try the laws of connections and constraints on a variant of your own.

    Example: mhc-lab check my_variant.py residual.radius=1.5. Exit code 3 if a law is broken.
    """
    from mhc_lab.testing.command import check as run

    if not run(what, overrides or [], typer.echo):
        raise typer.Exit(EXIT_RUNS_FAILED)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
    tracking_uri: TrackingUri = None,
    results: Results = Path("results"),
) -> None:
    """Show the runs in MLflow's pages."""
    from mhc_lab.tracking.ui import ui

    ui(results, port, tracking_uri, say=typer.echo)


def parse_seeds(text: str) -> list[int]:
    """ "0,1,2", "0-4" or a mix of both, as numbers; LabError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        ends = (first, last) if dash else (first, first)
        if not all(end.isdecimal() for end in ends) or int(ends[0]) > int(ends[1]):
            raise LabError(f"--seeds {text}: give whole numbers from 0 as 0,1,2 or 0-4")
        if int(ends[1]) - int(ends[0]) >= MANY_SEEDS:
            raise LabError(f"--seeds {text}: more than {MANY_SEEDS} seeds")
        seeds += range(int(ends[0]), int(ends[1]) + 1)
    return seeds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code: 0 done, 1 a bug of ours, 2 the user's input, 3 some runs failed."""
    from mhc_lab.machine import speak_anyway

    speak_anyway()
    try:
        with _apart():
            code = int(app(args=arguments, standalone_mode=False) or EXIT_OK)
    except LabError as error:
        said = _redacted(str(error))
        print(said if error.exit_code == EXIT_INTERRUPTED else f"error: {said}", file=sys.stderr)
        return error.exit_code
    except _UsageError as error:
        error.show()
        return EXIT_INPUT
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except Exception as error:
        if _disk_full(error):
            return EXIT_RUNS_FAILED
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # only what a user gave can be so long
            print(f"error: {shown(str(error.filename))}: longer than a file's name can be", file=sys.stderr)
            return EXIT_INPUT
        print(_redacted(traceback.format_exc()), end="", file=sys.stderr)
        print("error: this is a bug of mhc-lab, please report it with the lines above", file=sys.stderr)
        return EXIT_BUG
    if code == EXIT_INTERRUPTED:  # newer typers return it for Ctrl-C, older ones abort
        print("interrupted: nothing finished is lost; repeat the same command to go on", file=sys.stderr)
    return code


def _train(results: Path, config: RunConfig, fingerprint: str) -> bool:
    """Train, as the first rank or as one that torchrun started beside it; whether this is the one that tells of it."""
    from filelock import Timeout

    from mhc_lab.config.run_id import run_id
    from mhc_lab.run_folder import RunFolder, runs_dir
    from mhc_lab.tracking.mlflow import start_run
    from mhc_lab.tracking.store import resolve_uri
    from mhc_lab.training.joining import check_started, join
    from mhc_lab.training.launch import launch
    from mhc_lab.training.placement import accelerator, global_rank

    # Mistakes of place come to light before anything is written.
    check_started(config)
    accelerator(config.trainer)
    resolve_uri(config.tracking.uri, results)
    if global_rank(config.trainer) > 0:
        folder = RunFolder(runs_dir(results) / run_id(config, fingerprint))
        join(folder, config)
    else:
        folder = RunFolder.create(results, config, fingerprint)
        if (steps := folder.logged_steps()) and not folder.ended():
            typer.echo(f"an earlier attempt stopped at step {steps}: the run begins anew", err=True)
        try:
            with folder.lock():
                start_run(results, folder, config.tracking)
        except Timeout as error:
            raise LabError(f"{folder.path}: another process works on this run; wait for it or stop it") from error
    record = launch(folder, progress=True)
    if record["status"] == "killed":
        steps = record["metrics"].get("steps", 0)
        lost = f"{steps} of {config.trainer.max_steps} steps are lost" if steps else "no step is lost"
        raise Interrupted(f"interrupted: {lost}; the same command begins this run anew")
    if record["status"] == "failed":
        raise RunsFailed(f"{folder.path}: failed: {record['reason']}")
    return global_rank(config.trainer) == 0


def _export_sweep(folder: StudyFolder, formats: list[str] | None, storage: str | None, open_page: bool) -> None:
    from mhc_lab.command import command_line
    from mhc_lab.study.outcome import FORMATS, export_sweep

    written = export_sweep(folder, formats or FORMATS, command=command_line(), storage=storage)
    for path in written:
        typer.echo(path)
    if open_page:
        _open(next(path for path in written if path.suffix == ".html"))


def _open(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        typer.echo(f"no browser was found: open {page} in yours", err=True)


def _disk_full(error: Exception) -> bool:
    """Whether there was no room somewhere, said in one line."""
    from mhc_lab.disk import DiskFull, is_disk_full

    place = Path(str(getattr(error, "filename", None) or "."))
    if not is_disk_full(error):
        return False
    print(f"error: {DiskFull(place.absolute())}", file=sys.stderr)
    return True


def _redacted(text: str) -> str:
    from mhc_lab.secrets import redact

    return redact(text)


@contextmanager
def _apart() -> Iterator[None]:
    """What a command may run is its own affair: a Python that called it finds its own rules again."""
    from mhc_lab.residual.registry import TRUST_VARIABLE, restrict_plugins

    before = os.environ.get(TRUST_VARIABLE, "")
    try:
        yield
    finally:
        restrict_plugins(False)
        os.environ[TRUST_VARIABLE] = before


def _trust(wanted: bool) -> None:
    from mhc_lab.residual import registry

    if wanted:
        registry.trust_plugin(registry.TRUST_ALL)


def _warn(line: str) -> None:
    typer.echo(f"warning: {line}", err=True)


def _check_code(folder: RunFolder, keep: bool) -> None:
    from mhc_lab.identity.ledger import named

    if not keep and (names := folder.other_code()):
        raise LabError(
            f"{folder.path} was made with other code than now ({named(names)}): "
            f"--rerun runs it again, --keep takes it as it is"
        )


def _show_plan(folder: RunFolder, config: RunConfig) -> None:
    import yaml

    from mhc_lab.config.compose import to_dict

    typer.echo(yaml.safe_dump(to_dict(config), sort_keys=False))
    typer.echo("what each setting means: mhc-lab list settings")
    typer.echo(f"{folder.path}: {'has a result' if folder.ended() else 'to run'}")


def _show(folder: RunFolder) -> None:
    """A run's result in a few lines."""
    record: dict[str, Any] = folder.record() or {}
    metrics = record["metrics"]
    typer.echo(f"{folder.run_id}: {record['status']}{': ' + record['reason'] if record['reason'] else ''}")
    for title, names in (
        ("loss", ("val_loss", "bits_per_byte", "train_loss")),
        ("stability", ("max_grad_norm", "loss_spikes", "composite_gain_forward", "composite_gain_backward")),
        ("cost", ("ms_per_step", "tokens_per_second", "peak_memory_mb")),
    ):
        told = [f"{name} {metrics[name]:.5g}" for name in names if metrics.get(name) is not None]
        if told:
            typer.echo(f"  {title:10}{'   '.join(told)}")
    typer.echo(f"  {folder.path}")


if __name__ == "__main__":
    sys.exit(main())
