"""Which runs of a table were made by one state of the code: rows execute different parts of it."""

from __future__ import annotations

from dataclasses import dataclass

from mhc_lab.identity.code import Code, Executed
from mhc_lab.identity.ledger import conflicts, ledger, renewed
from mhc_lab.report.frame import Study
from mhc_lab.run_folder import ENDED, RunFolder


@dataclass
class _State:
    """Runs that agree, by what each of them executed; `unknown`: fingerprints of runs that say no more."""

    parts: dict[Executed, Code]
    unknown: str
    runs: list[str]


def code_states(study: Study) -> dict[str, list[str]]:
    """The states of the code behind the results of a study, a name -> its run ids; one where all is well.

    Runs are of one state where no definition that two of them executed differs, after the changes that the ledger knows
    to alter no number. A state is named by the fingerprint of its first run.
    """
    ended = study.cells[study.cells["status"].isin(ENDED)].dropna(subset=["code_fingerprint"])
    found: dict[str, _State] = {}
    for fingerprint, cells in ended.groupby("code_fingerprint", sort=False):
        runs = sorted(cells["run_id"].unique())
        part, unknown = _part(study, runs[0]), ""
        if part is None and fingerprint not in ledger()["packages"]:
            unknown = str(fingerprint)
        state = next((state for state in found.values() if _agrees(state, part, unknown)), None)
        if state is None:
            state = found[str(fingerprint)] = _State({}, unknown, [])
        state.runs += runs
        if part is not None:
            state.parts.setdefault(*part)
    return {name: sorted(state.runs) for name, state in found.items()}


def _part(study: Study, run_id: str) -> tuple[Executed, Code] | None:
    made = RunFolder(study.runs / run_id).code()
    return None if made is None else (made[0], renewed(made[1]))


def _agrees(state: _State, part: tuple[Executed, Code] | None, unknown: str) -> bool:
    if unknown or state.unknown:
        return unknown == state.unknown
    if part is None:  # of a package that the ledger knows
        return not any(_beyond_start(code) for code in state.parts.values())
    if not state.parts:
        return not _beyond_start(part[1])
    executed, code = part
    return not any(conflicts(other, code, alike=one == executed) for one, other in state.parts.items())


def _beyond_start(code: Code) -> list[str]:
    """Where code differs from that of the packages which the ledger knows."""
    return conflicts(renewed(ledger()["start"]), code, alike=False)
