"""One command each: `nox -s demo`, `nox -s tests`; `nox -l` lists them all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"  # pip honours constraints.txt everywhere; see README, "Installing"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "checks"]

CONSTRAINTS = ("-c", "constraints.txt")
PIP = ("-q", "--no-compile")  # Python compiles what is imported: a third of the time of an installation
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as containers set it: each process would compile all of it again
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORM = ("--python-platform", "x86_64-manylinux_2_28")


def install(session: nox.Session, *extras: str) -> None:
    """The project as it is here, with the versions that its tests run on."""
    what = f".[{','.join(extras)}]" if extras else "."
    session.install(*PIP, *CONSTRAINTS, "-e", what)


def run_tests(session: nox.Session, *arguments: str) -> None:
    """pytest, two processes that share the cores: one thread each, and a file's tests, which share fixtures, in one."""
    shared = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
    environment = {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    session.run("python", "-m", "mhc_lab.ops.warm_up", env=environment)  # once, not by both at the same time
    session.run("pytest", *shared, *arguments, *session.posargs, env=environment)


def run_lint(session: nox.Session) -> None:
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


def run_types(session: nox.Session) -> None:
    session.run("mypy")


def run_resolve(session: nox.Session) -> None:
    for python in PYTHONS:
        resolved(session, "--python-version", python, *CONSTRAINTS, "--all-extras")


def run_survival(session: nox.Session) -> None:
    run_tests(session, "-m", "survival")


def run_docs(session: nox.Session) -> None:
    session.run("mkdocs", "build", "--strict", "-q", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})


def run_kernels(session: nox.Session) -> None:
    session.run("pytest", "-m", "kernels", *session.posargs)


def resolved(session: nox.Session, *arguments: str) -> list[str]:
    """What uv finds for pyproject.toml on Linux, as `name==version`: no local wheel, no user's setting."""
    compiled = session.run(
        *("uv", "pip", "compile", "-q", "--no-config", "--no-header", "--no-annotate", *PLATFORM, *arguments),
        "pyproject.toml",
        env={name: None for name in os.environ if name.startswith("UV_") and not name.endswith(("CERT", "PROXY"))},
        silent=True,
    )
    return str(compiled).splitlines()


@nox.session
def demo(session: nox.Session) -> None:
    """The ablation grid `demo` on the embedded corpus: 10 rows, 5 seeds, a table in results/demo."""
    install(session)
    session.run("mhc-lab", "ablate", "demo", "--workers", "2", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """The tests, two at a time; those of minutes are in `survival`, `kernels` and `fuzz`."""
    install(session, "test")
    run_tests(session)


@nox.session
def fuzz(session: nox.Session) -> None:
    """1,000 damaged folders, 2,000 compositions, 500 command lines; `-- --seed N` for others."""
    install(session, "test")
    seed = session.posargs[1] if session.posargs[:1] == ["--seed"] else "0"
    session.run("pytest", "-m", "fuzz", env={"MHC_LAB_FUZZ_SEED": seed, "OMP_NUM_THREADS": "1"})


@nox.session
def checks(session: nox.Session) -> None:
    """What else every change must pass, in one environment: lint, types, docs, resolve, survival, kernels."""
    install(session, "test", "types", "docs")
    session.install(*PIP, *CONSTRAINTS, "ruff", "uv")
    for check in (run_lint, run_types, run_docs, run_resolve, run_survival, run_kernels):
        check(session)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: rules and format."""
    session.install(*PIP, *CONSTRAINTS, "ruff")
    run_lint(session)


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict over the package."""
    install(session, "types")
    run_types(session)


@nox.session
def docs(session: nox.Session) -> None:
    """The documents as a site, into site/: every link and every generated page, strictly."""
    install(session, "docs")
    run_docs(session)


@nox.session
def resolve(session: nox.Session) -> None:
    """constraints.txt can be installed from the public index on every Python that we name; downloads metadata only."""
    session.install(*PIP, *CONSTRAINTS, "uv")
    run_resolve(session)


@nox.session
def survival(session: nox.Session) -> None:
    """The tests that kill workers, restart servers, start several ranks and nodes, and starve the machine."""
    install(session, "test")
    run_survival(session)


@nox.session
def kernels(session: nox.Session) -> None:
    """Every Triton kernel compiled for every GPU that we name: none spills, each fits."""
    install(session, "test")
    run_kernels(session)


@nox.session
def lowest(session: nox.Session) -> None:
    """The tests on the oldest versions that pyproject.toml allows, but torch 2.13, whose CPU build is at hand."""
    session.install(*PIP, *CONSTRAINTS, "uv")
    scratch = Path(session.create_tmp())
    torch = scratch / "torch.txt"
    torch.write_text("torch==2.13.0\ntriton==3.6.0\n")  # instead of what the metadata of torch's CUDA build asks for
    python = ".".join(map(str, sys.version_info[:2]))
    lines = resolved(
        session,
        *("--python-version", python, "--resolution", "lowest-direct", "--extra", "test", "--override", str(torch)),
    )
    wanted = scratch / "lowest.txt"
    wanted.write_text("\n".join(line for line in lines if not line.startswith(("nvidia-", "cuda-"))))
    session.install(*PIP, "--no-deps", "-r", str(wanted))
    session.install(*PIP, "--no-deps", "-e", ".")
    run_tests(session)


@nox.session
def gpu(session: nox.Session) -> None:
    """Ten minutes on a GPU: correctness, operations, steps, a study: `nox -s gpu -- --minutes 10 --out DIR`."""
    install(session)
    session.run("python", "-m", "mhc_lab.bench", "day", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Operations, training steps and memory on this machine, into results/bench: `nox -s bench -- --quick`."""
    install(session)
    for what in ("ops", "step", "memory"):
        session.run("mhc-lab", "bench", what, *session.posargs)


@nox.session
def same_numbers(session: nox.Session) -> None:
    """A dozen tiny runs of another commit and of this tree, compared bit by bit: `nox -s same_numbers -- COMMIT`."""
    install(session)
    session.run("python", "tests/same_numbers/compare.py", *session.posargs)


@nox.session
def statistics(session: nox.Session) -> None:
    """The tests and intervals of a table on simulated studies whose truth is known, into results/statistics."""
    install(session, "test")
    session.run("python", "tests/report/simulation.py", *session.posargs)


@nox.session
def export_speed(session: nox.Session) -> None:
    """How long exports of 1,000 generated runs take, into results/speed; fails past the limits."""
    install(session)
    session.run("python", "tests/report/speed.py", "results/speed", *session.posargs)
