"""Configurations of rows: what is compared, what is left out, and files that are not there or broken."""

from __future__ import annotations

import pytest
import yaml

from mhc_lab.errors import LabError
from mhc_lab.report.configs import ABSENT, compare, settings
from mhc_lab.report.frame import load


def test_only_what_the_variant_uses_is_compared(study, write_config) -> None:
    study.row("identity", [2.5, 2.6]).row("mhc", [2.4, 2.5], modes="ddd")
    write_config("identity", "identity", t_max=7)
    write_config("mhc", "mhc", t_max=5)
    loaded = load(study.save(), "demo")
    found = {key: (was, now) for key, was, now in compare(settings(loaded, "identity"), settings(loaded, "mhc"))}
    assert found["residual.variant"] == ("identity", "mhc")
    assert found["residual.t_max"] == (ABSENT, "5")  # identity has no Sinkhorn, whatever its config says
    assert {key.partition(".")[0] for key in found} == {"residual"}  # neither seed nor workers, paths, corpus


def test_a_row_that_changes_one_setting_differs_in_it_alone(study, write_config) -> None:
    study.spec["baseline"] = "mhc"
    study.row("mhc", [2.4]).row("mhc_short", [2.5], variant="mhc")
    write_config("mhc", "mhc")
    write_config("mhc_short", "mhc", t_max=3)
    loaded = load(study.save(), "demo")
    assert compare(settings(loaded, "mhc"), settings(loaded, "mhc_short")) == [("residual.t_max", "20", "3")]


def test_values_read_as_a_user_writes_them(study, write_config) -> None:
    study.row("identity", [2.5])
    write_config("identity", "hc", constraints=["mhc", "orthogonal"])
    found = settings(load(study.save(), "demo"), "identity")
    assert found["control"] == "false"
    assert found["model.ffn_width"] == "default"
    assert found["optim.learning_rate"] == "0.003"
    assert "seed" not in found


def test_a_run_that_ended_tells_before_one_that_failed(study, write_config) -> None:
    study.row("identity", [2.5]).row("mhc", [None, 2.4])
    study.cell("mhc", 0, None, status="failed", metrics={}, cost={})
    write_config("mhc", "mhc", t_max=5)
    failed = study.results / "runs" / study.spec["cells"][1]["run_id"] / "config.yaml"
    failed.write_text(failed.read_text().replace("t_max: 5", "t_max: 99"))
    assert settings(load(study.save(), "demo"), "mhc")["residual.t_max"] == "5"


def test_a_variant_that_is_not_registered_keeps_its_settings(study, write_config) -> None:
    study.row("identity", [2.5])
    write_config("identity", "someones_plugin", t_max=5)
    found = settings(load(study.save(), "demo"), "identity")
    assert (found["residual.variant"], found["residual.t_max"]) == ("someones_plugin", "5")
    assert not {"trainer.devices", "residual.plugin", "tracking.uri", "seed"} & found.keys()


def test_a_config_of_another_version_is_read(study, write_config) -> None:
    study.row("identity", [2.5])
    write_config("identity", "identity")
    file = study.results / "runs" / study.spec["cells"][0]["run_id"] / "config.yaml"
    content = yaml.safe_load(file.read_text())
    content["model"]["mixture_of_experts"] = 8
    file.write_text(yaml.safe_dump(content))
    assert settings(load(study.save(), "demo"), "identity")["model.dim"] == "64"


@pytest.mark.parametrize("text", ["residual: [", "just words", "\xff"])
def test_a_broken_config_is_named(study, write_config, text: str) -> None:
    study.row("identity", [2.5])
    write_config("identity", "identity")
    run_id = study.spec["cells"][0]["run_id"]
    (study.results / "runs" / run_id / "config.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(LabError, match=rf"{run_id}/config\.yaml cannot be read"):
        settings(load(study.save(), "demo"), "identity")


def test_a_row_without_a_config_says_so(study) -> None:
    study.row("identity", [2.5])
    with pytest.raises(LabError, match=r"identity: no run has a config\.yaml yet"):
        settings(load(study.save(), "demo"), "identity")


def test_compare_goes_in_our_order_then_theirs() -> None:
    assert compare({"a": "1", "b": "2", "c": "3"}, {"d": "4", "b": "2", "c": "0"}) == [
        ("a", "1", ABSENT),
        ("c", "3", "0"),
        ("d", ABSENT, "4"),
    ]
