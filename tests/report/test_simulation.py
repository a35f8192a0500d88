"""The promises of the statistics, asserted on 2,000 simulated studies each (`simulation.py` says which)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import simulation

STUDIES = 2_000
CLAIMS = list(simulation.claims())


@pytest.mark.parametrize("claim", [pytest.param(claim, id=claim.name) for claim in CLAIMS if claim.bounded])
def test_claim_holds(claim: simulation.Claim) -> None:
    rate = claim.measure(STUDIES)
    assert claim.holds(rate, STUDIES), f"{rate} is not in {claim.allowed(STUDIES)}"


def test_bootstrap_is_withheld_where_it_covers_too_little() -> None:
    # What is measured without the least number of seeds is what a table would print.
    assert simulation.stats.bca_interval([0.1, 0.2, 0.3, 0.4, 0.5]) is None
    assert simulation.coverage(STUDIES, simulation.bca_ends, 5, simulation.normal) < 0.88


def test_committed_results_are_those_of_these_claims() -> None:
    content = json.loads((simulation.OUTPUT / "simulation.json").read_text(encoding="utf-8"))
    assert [(line["claim"], line["setting"]) for line in content["claims"]] == [(c.what, c.setting) for c in CLAIMS]
    verdicts = ["holds" if claim.bounded else "reported" for claim in CLAIMS]
    assert [line["verdict"] for line in content["claims"]] == verdicts


def test_a_broken_claim_is_written_and_fails_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = [
        simulation.Claim("broken", "a", lambda _: 0.2, high=0.05),
        simulation.Claim("sound", "b", lambda _: 0.95, 0.93, 0.97, False),
        simulation.Claim("seen", "c", lambda _: 0.5),
    ]
    monkeypatch.setattr(simulation, "claims", lambda: iter(claims))
    assert simulation.main(["--studies", "100", "--output", str(tmp_path)]) == 1
    table = (tmp_path / "simulation.md").read_text(encoding="utf-8")
    assert "| broken | a | 0.2000 | ≤ 0.0936 | does not hold |" in table  # .05 + 2 sqrt(.05 * .95 / 100)
    assert "| sound | b | 0.9500 | 0.9300 to 0.9700 | holds |" in table
    assert "| seen | c | 0.5000 |  | reported |" in table
    monkeypatch.setattr(simulation, "claims", lambda: iter(claims[1:]))
    assert simulation.main(["--studies", "100", "--output", str(tmp_path)]) == 0
