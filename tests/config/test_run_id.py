"""The run id: one id for one result, another for another."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mhc_lab.config import compose
from mhc_lab.config.run_id import code_fingerprint, run_id
from mhc_lab.config.values import parse


def identify(*overrides: str, corpus: str = "corpus", shared: Sequence[str] = ()) -> str:
    return run_id(compose(overrides, shared=shared), corpus)


@pytest.mark.parametrize(
    "change",
    [
        "residual.t_max=19",
        "residual.streams=2",
        "residual.sinkhorn=newton",
        "residual.h_pre=static",
        "residual.alpha_init=0.02",
        "model.dim=128",
        "optim.learning_rate=1e-4",
        "trainer.max_steps=301",
        "trainer.precision=bf16-mixed",
        "data.batch_size=16",
        "seed=1",
        "control=true",
    ],
)
def test_what_can_change_the_result_changes_the_id(change: str) -> None:
    assert identify("residual=mhc") != identify("residual=mhc", change)


@pytest.mark.parametrize(
    "change",
    [
        "trainer.accelerator=auto",
        "trainer.threads=1",
        "trainer.log_every=3",
        "trainer=ddp",
        "tracking=none",
        "launcher.workers=4",
    ],
)
def test_what_cannot_change_the_result_does_not(change: str) -> None:
    assert identify("residual=mhc") == identify("residual=mhc", change)


@pytest.mark.parametrize(
    "change", ["data.task=copy", "optim.min_ratio=0.3", "residual.expand_base=0.5", "data.files=[a.txt]"]
)
def test_what_nothing_reads_is_not_in_the_id(change: str) -> None:
    config = compose(["residual=mhc"])
    key, _, value = change.partition("=")
    group, _, name = key.partition(".")
    setattr(getattr(config, group), name, parse(key, value))  # as a preset may have it
    assert run_id(config, "corpus") == identify("residual=mhc") == identify("residual=mhc", shared=[change])


def test_the_corpus_is_in_the_id() -> None:
    assert identify(corpus="one") != identify(corpus="two")


def test_fields_that_do_not_matter_are_dropped() -> None:
    shared = ["residual.t_max=3", "residual.streams=2"]
    assert run_id(compose(["residual=identity"], shared=shared), "c") == run_id(compose(["residual=identity"]), "c")
    fixed = ["residual=mhc", "residual.h_res=fixed"]
    assert identify(*fixed) == identify(*fixed, shared=["residual.t_max=3", "residual.res_diagonal=0.5"])


@pytest.mark.parametrize("name", ["permutations", "kronecker"])
def test_an_exact_map_is_one_run_across_t_max(name: str) -> None:
    exact = ["residual=mhc", f"residual.sinkhorn={name}"]
    assert identify(*exact) == identify(*exact, shared=["residual.t_max=3"]) != identify("residual=mhc")
    assert identify(*exact) != identify(*exact, "residual.res_diagonal=0.5")


def test_an_algorithm_that_iterates_keeps_t_max_in_the_id() -> None:
    for name in ("log", "overrelaxed", "newton", "warm"):
        assert identify("residual=mhc", f"residual.sinkhorn={name}") != identify(
            "residual=mhc", f"residual.sinkhorn={name}", "residual.t_max=3"
        )


def test_a_learned_read_keeps_its_initial_values_in_the_id() -> None:
    static = ["residual=mhc", *(f"residual.{name}=static" for name in ("h_pre", "h_post", "h_res"))]
    assert identify(*static) == identify(*static, shared=["residual.phi_std=0.5"])
    read = [*static, "residual.collapse=read"]
    assert identify(*read) != identify(*read, "residual.phi_std=0.5")


def test_the_id_is_a_folder_name() -> None:
    assert identify("residual=mhc").startswith("mhc-")
    assert len(code_fingerprint()) == 12


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["residual=mhc"], "mhc-f487e1f549a3"),
        (["residual=hc", "residual.streams=2", "seed=3"], "hc-ee2f47b405ea"),
        (["residual=identity", "control=true"], "identity-20ccfa4977e4"),
        (["residual=mhc", "residual.convention=v4", "residual.collapse=read"], "mhc-921f79f7b3e0"),
        (["residual=orthogonal", "model.dim=32", "trainer.precision=bf16-mixed"], "orthogonal-6da2a0953f21"),
        (
            ["residual=row_stochastic", "data=synthetic", "data.task=copy", "optim.schedule=cosine"],
            "row_stochastic-40824e5480d8",
        ),
        (["residual=identity_hc", "residual.h_post=fixed", "optim.learning_rate=1e-4"], "identity_hc-16233ce8132d"),
    ],
)
def test_a_result_keeps_its_name(overrides: list[str], name: str) -> None:
    """These ids stand for ever: a new setting at its default must not rename what was run before it came."""
    assert identify(*overrides) == name
