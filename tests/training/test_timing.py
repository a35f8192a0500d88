import json

import pytest

from mhc_lab.errors import EXIT_INPUT
from mhc_lab.identity.code import fingerprint
from mhc_lab.training import timing


def test_every_row_is_timed_beside_the_baseline(tiny):
    configs = {"identity": tiny("residual=identity"), "mhc": tiny("residual=mhc")}
    found = timing.time_rows(configs, dict.fromkeys(configs, "identity"), steps=51)
    assert {row["baseline"] for row in found["rows"].values()} == {"identity"}
    assert list(found["rows"]) == ["identity", "mhc"]
    assert all(row["samples"] == 51 and row["ms_per_step"] > 0 for row in found["rows"].values())


def test_the_same_work_takes_the_same_time_and_mixing_takes_more(tiny):
    configs = {"identity": tiny("residual=identity"), "mhc": tiny("residual=mhc")}
    ratios = {}
    for _ in range(4):  # steps of a millisecond, on cores that the other tests have too
        found = timing.time_rows(configs, dict.fromkeys(configs, "identity"), steps=51)
        ratios = {name: row["ms_ratio"] for name, row in found["rows"].items()}
        if ratios["identity"] == pytest.approx(1.0, abs=0.5) and ratios["mhc"] > ratios["identity"]:
            return
    pytest.fail(f"{ratios}")


def test_bf16_rows_are_timed(tiny):
    configs = {"identity": tiny("residual=identity", "trainer.precision=bf16-mixed")}
    assert timing.time_rows(configs, dict.fromkeys(configs, "identity"), steps=2)["rows"]["identity"]["ms_per_step"] > 0


def test_a_row_that_cannot_be_timed_costs_the_others_nothing(tiny, monkeypatch, capsys):
    build = timing.build_model

    def out_of_memory(config, vocab_size):
        if config.residual.variant == "mhc":
            raise MemoryError
        return build(config, vocab_size)

    monkeypatch.setattr(timing, "build_model", out_of_memory)
    configs = {name: tiny(f"residual={name}") for name in ("identity", "mhc", "hc")}
    assert list(timing.time_rows(configs, dict.fromkeys(configs, "identity"), steps=2)["rows"]) == ["identity", "hc"]
    assert "row 'mhc' could not be timed: MemoryError" in capsys.readouterr().err


def test_a_baseline_that_cannot_be_timed_costs_the_other_sizes_nothing(tiny, monkeypatch, capsys):
    build = timing.build_model

    def out_of_memory(config, vocab_size):
        if config.model.blocks == 3:
            raise MemoryError
        return build(config, vocab_size)

    monkeypatch.setattr(timing, "build_model", out_of_memory)
    configs = {"small": tiny("residual=identity"), "large": tiny("residual=identity", "model.blocks=3")}
    configs |= {"large_mhc": tiny("residual=mhc", "model.blocks=3"), "small_mhc": tiny("residual=mhc")}
    found = timing.time_rows(configs, {name: name.removesuffix("_mhc") for name in configs}, steps=2)
    assert {name: row["baseline"] for name, row in found["rows"].items()} == {"small": "small", "small_mhc": "small"}
    assert capsys.readouterr().err.count("could not be timed: MemoryError") == 2


def row_of_a_study(name: str) -> dict[str, object]:
    modes = dict.fromkeys(("h_res", "h_pre", "h_post"), "fixed" if name == "identity" else "dynamic")
    return {"row": name, "baseline": "identity", "variant": name, **modes, "streams": 4}


def test_the_timing_pass_of_a_study(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "STEPS", 2)
    rows = {"identity": folder("residual=identity"), "hc": folder("residual=hc")}
    study = tmp_path / "mine"
    study.mkdir()
    run_ids = {name: row.run_id for name, row in rows.items()}
    (study / "study.json").write_text(
        json.dumps(
            {
                **dict.fromkeys(("study", "title", "command", "created", "storage", "grid"), "mine"),
                "baseline": "identity",
                "overrides": [],
                "rows": [row_of_a_study(name) for name in rows],
                "cells": [],
                "timing_config": run_ids,
            }
        )
    )
    assert timing.main([str(study)]) == 0
    written = json.loads((study / "timing.json").read_text())
    assert {name: row["run_id"] for name, row in written["rows"].items()} == run_ids
    assert written["threads"] >= 1
    assert written["code_fingerprint"] == fingerprint(written["definitions"])
    assert "training.module.ResidualLM" in written["definitions"]


def test_a_folder_that_is_no_study(tmp_path, capsys):
    assert timing.main([str(tmp_path)]) == EXIT_INPUT
    assert "not a study folder" in capsys.readouterr().err
