"""One command each: `nox -s demo`, `nox -s tests`; `nox -l` lists them all."""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "venv"  # pip honours constraints.txt everywhere; see README, "Installing"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "lint", "types"]

CONSTRAINTS = ("-c", "constraints.txt")


def install(session: nox.Session, *extras: str) -> None:
    """The project as it is here, with the versions that its tests run on."""
    what = f".[{','.join(extras)}]" if extras else "."
    session.install("-q", *CONSTRAINTS, "-e", what)


@nox.session
def demo(session: nox.Session) -> None:
    """The ablation grid `demo` on the embedded corpus: 10 rows, 5 seeds, a table in results/demo."""
    install(session)
    session.run("mhc-lab", "ablate", "demo", "--workers", "2", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, two at a time."""
    install(session, "test")
    # The test runner's processes share the cores: one thread each.
    session.run("pytest", "-n", "2", *session.posargs, env={"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"})


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: rules and format."""
    session.install("-q", *CONSTRAINTS, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict over the package."""
    install(session, "types")
    session.run("mypy")


@nox.session
def bench(session: nox.Session) -> None:
    """Operations, training steps and memory on this machine, into results/bench: `nox -s bench -- --quick`."""
    install(session)
    for what in ("ops", "step", "memory"):
        session.run("mhc-lab", "bench", what, *session.posargs)


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
