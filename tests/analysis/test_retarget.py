"""Retargeting: the run's own loss again, replacements that change something, and every mistake in one line."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch

from mhc_lab import cli
from mhc_lab.analysis.enough import run_sentence
from mhc_lab.analysis.evaluate import difference, evaluate, token_means
from mhc_lab.analysis.retarget import retarget
from mhc_lab.analysis.retarget_report import words
from mhc_lab.analysis.trained import open_run


def quiet(line: str) -> None:
    assert line


def test_its_own_t_max_gives_its_own_loss(trained_run):
    folder = trained_run("residual=mhc", "residual.t_max=7")
    recorded = folder.record()["metrics"]["val_loss"]
    rows = retarget(open_run(folder.path), [1, 7], ["plain", "newton"], ["float32", "bfloat16"], quiet)
    own = [
        row
        for row in rows
        if row.get("t_max") == 7 and row.get("precision") == "float32" and row["algorithm"] == "plain"
    ]
    assert len(own) == 2
    for row in [rows[0], *own]:
        assert row["val_loss"] == pytest.approx(recorded, abs=1e-5)
    other = next(row for row in rows if row.get("t_max") == 1)
    assert other["ds_error"] > 2 * own[0]["ds_error"]
    assert other["difference"] == pytest.approx(other["val_loss"] - rows[0]["val_loss"], abs=1e-9)


@pytest.mark.parametrize("variant", ["mhc", "hc", "orthogonal"])
def test_mixers_are_replaced_one_by_one(variant, trained_run):
    trained = open_run(trained_run(f"residual={variant}").path)
    plain = evaluate(trained).val_loss
    rows = [row for row in retarget(trained, [], [], [], quiet) if row["kind"] == "layer"]
    assert len(rows) == 2 * (4 + 1)
    with torch.no_grad():
        layers = []
        for inputs, _ in trained.batches:
            trained.model(inputs, trace=layers)
    first = torch.cat([layer.h_res.flatten(0, 1) for layer in layers[::4]]).double().mean(0).float()
    torch.testing.assert_close(token_means(trained)[0], first)
    with trained.connections[1].override(h_res="fixed"):
        assert rows[2]["val_loss"] == evaluate(trained).val_loss
    assert evaluate(trained).val_loss == plain  # nothing stays replaced


def by_t(*found: tuple[float, float | None]) -> list[dict]:
    """Rows for t_max = 1, 2, ... with (difference, half width)."""
    return [
        {"kind": "t_max", "algorithm": "plain", "t_max": t, "difference": gap, "half_width": half}
        for t, (gap, half) in enumerate(found, start=1)
    ]


@pytest.mark.parametrize(
    ("found", "trained", "says"),
    [
        (by_t((2.0, None), (0.0005, None)), 3, "t_max = 2 is enough .*within 0.001 .*t_max = 3, as trained.*too few"),
        (by_t((2.0, None), (1.0, None)), 3, r"no t_max up to 2 keeps val loss within 0.001 .*\(\+1 there"),
        (by_t((0.0, 0.0), (0.5, 0.6), (0.0, 0.0)), 4, "t_max = 3 is enough"),  # 1 only by chance: 2 is not
        (by_t((0.0005, 0.0009), (0.0, 0.0)), 4, "t_max = 2 is enough"),  # 1 may be outside, by its interval
        (by_t((float("nan"), None), (0.0, 0.0)), 4, "t_max = 2 is enough"),
        (
            by_t((0.3, 0.1), (0.004, 0.0), (0.0, 0.0)),
            3,
            "no t_max below the trained 3 is enough: t_max = 2 moves.*0.004",
        ),
        (by_t((0.0, 0.0)), 1, "no t_max below the trained 1 was tried"),
    ],
)
def test_what_is_said_of_t_max_is_what_was_measured(found, trained, says):
    (line,) = words(found, trained, 1e-3)
    assert re.match(f"plain: {says}", line), line


def test_a_wider_tolerance_takes_fewer_iterations():
    found = by_t((0.3, 0.1), (0.004, 0.0), (0.0, 0.0))
    assert "t_max = 2 is enough" in words(found, 3, 0.01)[0]


def test_a_mixer_is_missed_only_where_the_loss_rises_for_sure():
    layers = [
        {"kind": "layer", "by": "identity", "layer": layer, "difference": gap, "half_width": half}
        for layer, gap, half in ((0, 0.4, 0.5), (1, 0.01, 0.001), (2, -0.8, 0.001))
    ]
    assert words(layers, 20, 1e-3) == ["the mixer that is missed most: layer 1 (+0.01 with H_res = I)"]
    for none in (layers[:1], layers[2:]):
        assert words(none, 20, 1e-3)[0].startswith("no single mixer is missed")


@pytest.mark.parametrize("content", [None, "{", '{"loss_from": "4"}', '{"loss_from": true}', '{"loss_from": 4}'])
def test_each_command_quotes_the_other_where_it_has_been_run(tmp_path, content):
    file = tmp_path / "retarget" / "mhc-0" / "retarget.json"
    file.parent.mkdir(parents=True)
    if content is not None:
        file.write_text(content)
    told = run_sentence(tmp_path, "mhc-0")
    assert told.startswith("This is the t_max to train with.")
    assert ("t_max = 4 is enough" in told) == (content == '{"loss_from": 4}')
    assert "mhc-lab retarget" in told


def test_a_loss_that_is_not_finite_is_a_row_like_the_others(trained_run):
    trained = open_run(trained_run("residual=mhc").path)
    plain = evaluate(trained)
    broken = dataclasses.replace(plain, nll=plain.nll.clone().fill_(float("nan")))
    found = difference(broken, plain)
    assert math.isnan(found.mean)
    assert found.half_width is None


def test_a_run_is_named_by_its_folder_from_within(trained_run, monkeypatch):
    folder = trained_run("residual=mhc")
    monkeypatch.chdir(folder.path)
    assert open_run(Path()).folder.run_id == folder.run_id


MISTAKES = [
    (["retarget", "nowhere"], "no such folder"),
    (["retarget", "."], "not a run folder"),
    (["retarget", "IDENTITY"], "nothing to retarget"),
    (["retarget", "HC", "--t-max", "3"], "no Sinkhorn iteration"),
    (["retarget", "MHC", "--t-max", "0"], "--t-max 0"),
    (["retarget", "MHC", "--algorithms", "newtn"], "did you mean 'newton'"),
    (["retarget", "EDITED"], "residual.streams=4 (asked for: 2)"),
    (["retarget", "EMPTY"], "no such checkpoint"),
    (["sinkhorn", "--checkpoint", "HC"], "no Sinkhorn iteration"),
    (["sinkhorn", "--checkpoint", "EDITED"], "another model"),
    (["sinkhorn", "--checkpoint", "MHC", "--algorithms", "kronecker"], "leave out --checkpoint"),
    (["sinkhorn", "--bound", "1"], "above 1"),
    (["sinkhorn", "--streams", "3", "--algorithms", "kronecker"], "power of two"),
    (["sinkhorn", "--dtype", "fp8"], "--dtype fp8"),
    (["sinkhorn", "--seed", "99999999999999999999"], "--seed 1e+20: must be from 0 to"),
    (["sinkhorn", "--name", "../x"], "letters, digits"),
    (["sinkhorn", "--name", 300 * "x"], "at most 100 characters"),
    (["sinkhorn", "--results", "file/inside"], "file/inside: cannot be written"),
    (["retarget", "nowhere", "--results", "file/inside"], "file/inside: cannot be written"),
]


@pytest.mark.parametrize(
    ("arguments", "says"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else None
)
def test_a_mistake_is_one_line(arguments, says, trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    folders = {"IDENTITY": "identity", "HC": "hc", "MHC": "mhc", "EDITED": "mhc", "EMPTY": "mhc"}
    for name in set(arguments) & set(folders):
        shutil.copytree(trained_run(f"residual={folders[name]}").path, name)
    if "EDITED" in arguments:
        file = tmp_path / "EDITED" / "config.yaml"
        file.write_text(file.read_text().replace("streams: 4", "streams: 2"))
    if "EMPTY" in arguments:
        (tmp_path / "EMPTY" / "checkpoint.pt").unlink()
    assert cli.main(arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert says in line


def test_the_commands_write_what_they_say(trained_run, tmp_path, capsys):
    folder = trained_run("residual=mhc")
    copy = tmp_path / folder.run_id
    shutil.copytree(folder.path, copy)
    record = json.loads((copy / "record.json").read_text())
    (copy / "record.json").write_text(json.dumps({**record, "corpus_fingerprint": "another"}))
    results = ["--results", str(tmp_path)]
    assert cli.main(["retarget", str(copy), "--t-max", "1,20", *results]) == 0
    shown = capsys.readouterr().out
    assert "warning: the corpus is not the one" in shown
    made = json.loads((tmp_path / "retarget" / copy.name / "retarget.json").read_text())
    assert made["rows"][0]["val_loss"] == pytest.approx(record["metrics"]["val_loss"], abs=1e-5)
    assert cli.main(["sinkhorn", "--checkpoint", str(copy), "--t-max", "3", "--dtype", "float32", *results]) == 0
    assert "t_max = " in capsys.readouterr().out
    here = tmp_path / "sinkhorn-analysis" / copy.name
    for name in ("analysis.json", "table.csv", "table.md", "figures/layers.svg", "figures/composite_gain.png"):
        assert (here / name).stat().st_size > 100
    small = ["--layers", "3", "--matrices", "8", "--t-max", "2", "--name", "small", *results]
    assert cli.main(["sinkhorn", *small]) == 0
    rows = json.loads((tmp_path / "sinkhorn-analysis" / "small" / "analysis.json").read_text())["rows"]
    assert {row["algorithm"] for row in rows} >= {"plain", "permutations", "kronecker"}
