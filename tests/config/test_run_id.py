"""The run id: one id for one result, another for another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from mhc_lab.config import compose
from mhc_lab.config.run_id import fields_in_id, run_id
from mhc_lab.config.schema import setting
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


PINNED = {
    "identity-96ecb5d1f733": ("residual=identity",),
    "identity_wide-0ad5953961fe": ("residual=identity_wide", "residual.streams=2"),
    "identity_hc-2c914bd79f91": ("residual=identity_hc", "model=tiny"),
    "hc-da9233fd3b6d": ("residual=hc", "residual.h_res=static", "seed=3"),
    "mhc-aa22c24ac941": ("residual=mhc",),
    "mhc-805a066bbb8b": ("residual=mhc", "residual.convention=v4", "residual.hc_eps=1e-5", "residual.collapse=read"),
    "mhc-886ffc31b7fe": ("residual=mhc", "residual.sinkhorn=permutations", "data=synthetic", "data.task=copy"),
    "orthogonal-6905aa1e6fc3": ("residual=orthogonal", "residual.stream_dtype=bf16", "trainer.precision=bf16-mixed"),
    "row_stochastic-e8d67a6faa5a": ("residual=row_stochastic", "optim=cosine", "control=true"),
}


@pytest.mark.parametrize("wanted", PINNED)
def test_ids_are_for_ever(wanted: str) -> None:
    """A new setting changes none of them: at what runs did before, it is `added` and stays out."""
    assert identify(*PINNED[wanted], corpus="c0ffee") == wanted


def test_a_setting_that_was_added_is_in_the_id_where_it_says_something_new() -> None:
    @dataclass
    class Before:
        width: int = setting(4)

    @dataclass
    class Added(Before):
        depth: int = setting(1, added=1)

    @dataclass
    class OtherDefault(Before):  # what runs did before is not what they do now
        depth: int = setting(2, added=1)

    @dataclass
    class Plain(Before):
        depth: int = setting(1)

    assert fields_in_id(Added()) == fields_in_id(Before()) == fields_in_id(OtherDefault(depth=1))
    assert fields_in_id(Added(depth=2)) == fields_in_id(OtherDefault()) == {"width": 4, "depth": 2}
    assert fields_in_id(Plain()) != fields_in_id(Before())
