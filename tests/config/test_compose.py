"""Groups, overrides, domains: what is accepted, and one clear line for what is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mhc_lab.config import compose
from mhc_lab.errors import LabError


def test_order_of_precedence() -> None:
    config = compose(["residual=hc", "model=tiny", "model.dim=48", "optim.learning_rate=1e-4"])
    assert (config.model.dim, config.model.blocks, config.optim.learning_rate) == (48, 6, 1e-4)
    assert config.residual.b_pre_home == 1.0  # the variant's own default
    assert compose(["residual=hc", "residual.b_pre_home=2"]).residual.b_pre_home == 2.0


def test_a_later_override_wins_whatever_the_group() -> None:
    assert compose(["model.dim=32", "model=tiny", "model.dim=96"]).model.dim == 96


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["residual=mch"], "did you mean 'mhc'"),
        (["residul=mhc"], "did you mean 'residual'"),
        (["model.dimm=3"], "did you mean 'dim'"),
        (["sed=1"], "did you mean 'seed'"),
        (["trainer"], "group=option"),
        (["residual.streams=many"], "must be a whole number"),
        (["trainer.max_steps=2.5"], "must be a whole number"),
        (["residual.streams=0"], "from 1 to 1024"),
        (["residual.t_max=0"], "at least 1"),
        (["residual.alpha_init=nan"], "finite"),
        (["residual.streams=99999999999999999999999"], "from 1 to 1024"),
        (["residual.expand_base=1e300"], "below 2"),
        (["residual.h_post_home=3"], "below 2"),
        (["optim.beta1=1"], "below 1"),
        (["seed=99999999999999999999999999"], "from 0 to"),
        (["residual.plugin=~nobody-of-this-name/x.py"], "no such user"),
        (["optim.learning_rate=inf"], "finite"),
        (["residual.res_diagonal=1"], "below 1"),
        (["residual.h_pre=on"], "residual.h_pre"),
        (["residual=identity", "residual.h_res=static"], "has no h_res"),
        (["residual=identity_hc", "residual.h_res=static"], "has no h_res"),
        (["residual=orthogonal", "residual.t_max=3"], "variants with t_max: mhc"),
        (["residual=hc", "residual.convention=v4"], "has no convention"),
        (["residual.constraints=[sinkhorn]"], "no constraint 'sinkhorn'"),
        (["model.heads=3"], "model.heads=3"),
        (["data=text"], "needs data.files"),
        (["trainer=ddp", "data.batch_size=3"], "multiple of 2"),
        (["trainer.devices=2"], "needs a strategy"),
    ],
)
def test_mistakes_are_one_line_with_the_fix(overrides: list[str], says: str) -> None:
    with pytest.raises(LabError) as caught:
        compose(overrides)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shared_keys_that_a_variant_lacks_are_dropped() -> None:
    shared = ["residual.streams=2", "residual.t_max=5", "trainer.max_steps=7"]
    assert compose(["residual=identity"], shared=shared) == compose(["residual=identity", "trainer.max_steps=7"])
    mhc = compose(["residual=mhc", "residual.t_max=9"], shared=shared)
    assert (mhc.residual.streams, mhc.residual.t_max) == (2, 9)


def test_config_is_looked_up_in_the_given_folder_first(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "nano.yaml").write_text("dim: 16\n")
    (tmp_path / "model" / "mine.yaml").write_text("dim: 24\nheads: 2\n")
    assert compose(config_dir=tmp_path).model.dim == 16
    assert compose(["model=mine"], config_dir=tmp_path).model.dim == 24
    assert compose(["model=tiny"], config_dir=tmp_path).model.dim == 384


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "nano.yaml").write_text("dim: [1\n")
    with pytest.raises(LabError, match=r"nano\.yaml: not valid YAML"):
        compose(config_dir=tmp_path)
    (tmp_path / "model" / "nano.yaml").write_text("dim: 1\ndim: 2\n")
    with pytest.raises(LabError, match="'dim' stands twice"):
        compose(config_dir=tmp_path)
    (tmp_path / "model" / "nano.yaml").write_text("dimm: 1\n")
    with pytest.raises(LabError, match="dimm"):
        compose(config_dir=tmp_path)
    with pytest.raises(LabError, match="no such folder"):
        compose(config_dir=tmp_path / "nowhere")


def test_a_config_file_may_change_one_group(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: tiny\n")
    assert compose(config_dir=tmp_path).model.dim == 384
    for content, says in {"defaults: []": "no group 'defaults'", "model:": "must name an option"}.items():
        (tmp_path / "config.yaml").write_text(content)
        with pytest.raises(LabError, match=says):
            compose(config_dir=tmp_path)


def test_option_files_are_checked_as_overrides_are(tmp_path: Path) -> None:
    (tmp_path / "residual").mkdir()
    (tmp_path / "residual" / "mine.yaml").write_text("variant: identity\nt_max: 5\n")
    with pytest.raises(LabError, match="'identity' has no t_max"):
        compose(["residual=mine"], config_dir=tmp_path)


def test_composing_imports_no_framework() -> None:
    code = (
        "import sys; from mhc_lab.config import compose; compose(); "
        "print({'torch', 'lightning', 'mlflow', 'optuna'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["data.files=kjv.txt"], "data.files needs data=text"),
        (["data.task=copy"], "data.task needs data=synthetic"),
        (["data.synthetic_vocab=9"], "data.synthetic_vocab needs data=synthetic"),
        (["data=synthetic", "data.val_fraction=0.2"], "data.val_fraction needs data=stdlib or data=text"),
        (["optim.min_ratio=0.3"], "optim.min_ratio needs optim.schedule=cosine"),
        (["tracking=none", "tracking.uri=http://h"], "tracking.uri needs tracking=mlflow"),
        (["tracking=none", "tracking.experiment=e"], "tracking.experiment needs tracking=mlflow"),
        (["tracking.experiment=" + 251 * "x"], f"tracking.experiment={60 * 'x'}…: must be 1 to 250 characters"),
        (["residual.expand_base=0.5"], "residual.expand_base needs residual.expand=scaled"),
        (["residual.h_pre=fixed", "residual.b_pre_home=1"], "residual.b_pre_home needs residual.h_pre=dynamic or"),
        (["residual.h_res=fixed", "residual.t_max=3"], "residual.t_max needs residual.h_res=dynamic or static"),
        (["residual.sinkhorn=kronecker", "residual.t_max=3"], "sinkhorn=kronecker does not iterate"),
    ],
)
def test_what_is_typed_for_nothing_is_a_mistake(overrides: list[str], says: str) -> None:
    with pytest.raises(LabError) as caught:
        compose(overrides)
    assert says in str(caught.value)


def test_what_a_preset_holds_for_nothing_is_not(tmp_path: Path) -> None:
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "mine.yaml").write_text("min_ratio: 0.3\n")
    assert compose(["optim=mine"], config_dir=tmp_path).optim.min_ratio == 0.3


def test_what_is_shared_for_nothing_leaves_no_trace() -> None:
    assert compose(shared=["data.files=[a.txt]", "optim.min_ratio=0.3"]) == compose()
