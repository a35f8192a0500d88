"""Recomputation: the same losses and gradients to the last bit, from fewer bytes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from small_models import TOKENS, assert_equal, build, loss_of, trained
from torch import Tensor

from mhc_lab.config import RunConfig, compose
from mhc_lab.config.run_id import run_id
from mhc_lab.data.corpus import corpus_fingerprint
from mhc_lab.errors import LabError
from mhc_lab.models.gpt import GPT
from mhc_lab.models.recompute import block_length
from mhc_lab.models.saved_bytes import LiveBytes, measured_saved_bytes
from mhc_lab.models.stack import LayerTrace
from mhc_lab.residual import registry
from mhc_lab.run_folder import RunFolder
from mhc_lab.training.run import run

WITH_STREAMS = [name for name in registry.variants() if not registry.variant(name).plain]

CASES: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in WITH_STREAMS},
    "bf16 streams": ("mhc", "residual.stream_dtype=bf16"),
    "one stream": ("mhc", "residual.streams=1"),
    "three streams, v4": ("mhc", "residual.streams=3", "residual.convention=v4"),
    "learned ends": ("mhc", "residual.expand=scaled", "residual.collapse=read"),
    "static": ("mhc", "residual.h_pre=static", "residual.h_post=static", "residual.h_res=static"),
    "static hc": ("hc", "residual.h_pre=static", "residual.h_post=static", "residual.h_res=static"),
    "H_res alone": ("hc", "residual.h_pre=fixed", "residual.h_post=fixed"),
    "nothing learned": ("mhc", "residual.h_pre=fixed", "residual.h_post=fixed", "residual.h_res=fixed"),
    "constraints by layer": ("mhc", "residual.constraints=[orthogonal,row_stochastic,unconstrained]"),
}


@pytest.mark.parametrize(("case", "autocast"), [*((case, False) for case in CASES), ("mhc", True), ("hc", True)])
def test_losses_and_gradients_are_the_same_to_the_last_bit(case: str, autocast: bool, recomputed: list[int]) -> None:
    variant, *extra = CASES[case]
    expected, loss = trained(variant, "off", *extra, autocast=autocast)
    assert recomputed == []
    for block in ("auto", 1, 3, 100):
        model, found = trained(variant, block, *extra, autocast=autocast)
        assert torch.equal(found, loss)
        assert_equal(model, expected)
    assert recomputed == [2 if "streams=1" not in str(extra) else 1, 1, 3, 100]


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_depths_that_blocks_do_not_divide(blocks: int) -> None:
    expected, _ = trained("mhc", "off", f"model.blocks={blocks}")
    for block in range(1, 2 * blocks + 2):
        assert_equal(trained("mhc", block, f"model.blocks={blocks}")[0], expected)


def watch(model: GPT, seen: list[str]) -> None:
    """Note each run of a layer ("layer 3"), of its backward ("back 3") and of the step in front of it ("step 3")."""
    connections = list(model.stack.connections)
    names = ["read"] + ["write_read"] * (len(connections) - 1)
    for index, (owner, name) in enumerate(zip([connections[0], *connections], names, strict=False)):
        own = getattr(owner, name)
        setattr(owner, name, lambda *a, own=own, index=index: (seen.append(f"step {index}"), own(*a))[1])
    for index, layer in enumerate(model.stack.layers):
        layer.register_forward_hook(lambda *_, index=index: seen.append(f"layer {index}"))
        layer.register_full_backward_hook(lambda *_, index=index: seen.append(f"back {index}"))


@pytest.mark.parametrize("variant", ["mhc", "orthogonal"])
def test_layers_run_once_and_connections_twice_block_by_block(variant: str) -> None:
    """A block is run again when backward comes to it, not sooner; the last write never."""
    model, seen = build(variant, 2), []
    watch(model, seen)
    loss = loss_of(model)
    assert seen == [f"{what} {index}" for index in range(6) for what in ("step", "layer")]
    seen.clear()
    loss.backward()
    assert [s for s in seen if s.startswith("back")] == [f"back {index}" for index in range(5, -1, -1)]
    assert [s for s in seen if s.startswith("step")] == ["step 5", "step 3", "step 4", "step 0", "step 1", "step 2"]
    # The hidden state in front of layer 4 is the first that backward wants of steps 3 and 4, and so on.
    assert (
        seen.index("back 5") < seen.index("step 3") < seen.index("back 3") < seen.index("step 0") < seen.index("back 1")
    )
    assert not any(s.startswith("layer") for s in seen)


def test_a_plain_residual_has_nothing_to_recompute(recomputed: list[int]) -> None:
    for name in ("identity", "identity_wide"):
        model, _ = trained(name, "auto")
        assert_equal(model, trained(name, "off")[0])
    assert recomputed == []


def test_without_gradients_nothing_is_kept_or_recomputed(recomputed: list[int]) -> None:
    model, plain = build("mhc", "auto"), build("mhc", "off")
    with torch.no_grad():
        assert torch.equal(model(TOKENS), plain(TOKENS))
    with torch.inference_mode():
        model(TOKENS)
    assert recomputed == []


def test_a_trace_is_the_same(recomputed: list[int]) -> None:
    model, plain = build("mhc", "auto"), build("mhc", "off")
    ours: list[LayerTrace] = []
    theirs: list[LayerTrace] = []
    loss = model(TOKENS, ours).square().mean()  # with gradients on, too
    plain(TOKENS, theirs).square().mean().backward()
    loss.backward()
    assert_equal(model, plain)
    assert all(torch.equal(a.h_res, b.h_res) and a.spread == b.spread for a, b in zip(ours, theirs, strict=True))
    assert recomputed == [2]


@contextmanager
def no_collection() -> Iterator[None]:
    """What only the garbage collector would free counts as held."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("variant", ["mhc", "hc", "orthogonal"])
def test_it_keeps_block_starts_and_outputs_and_nothing_else_of_the_connections(variant: str) -> None:
    tokens, n, dim, layers = 32, 4, 32, 6
    kept = {}
    for block in ("off", 1, 2, 3, 6):
        model = build(variant, block)
        loss_of(model).backward()  # what a first call caches is not this pass's
        with no_collection(), LiveBytes(model) as alive:
            loss = loss_of(model)
            kept[block] = alive.now
            alive.peak = 0
            loss.backward()
            after = alive.now
        # Nothing is held that the hooks did not see (4 bytes: the loss; 8 a token: the input), and all is let go.
        assert kept[block] == pytest.approx(measured_saved_bytes(lambda model=model: loss_of(model), model), abs=600)
        assert after < 600
        kept[f"{block}, peak"] = alive.peak
    streams = 4 * n * dim * tokens
    small = 4 * tokens * (n * n + 2 * n)  # the mappings at a block start
    for block, starts in ((1, 5), (2, 3), (3, 2)):  # behind the last start lies a read
        assert kept[block] - kept[6] == pytest.approx((starts - 1) * (streams + small), abs=starts * small)
    # Off: every layer holds its streams and its hidden state.
    assert kept["off"] - kept[6] >= (layers - 1) * (streams + 4 * dim * tokens)
    assert kept["2, peak"] < kept["off, peak"]


def test_nothing_is_left_when_a_graph_is_dropped() -> None:
    model = build("mhc", "auto")
    outputs = []
    model.stack.layers[1].register_forward_hook(lambda *seen: outputs.append(weakref.ref(seen[-1])))
    with no_collection():
        loss = loss_of(model)
        assert outputs[0]() is None  # the graph holds it without its own graph
        del loss
        with LiveBytes(model) as alive:
            loss = loss_of(model)
            before = alive.now
            del loss
            assert alive.now < before / 100


def test_gradients_accumulate_over_micro_batches() -> None:
    batches = [torch.randint(0, 256, (2, 12)) for _ in range(3)]
    model, plain = build("mhc", "auto"), build("mhc", "off")
    for each in (model, plain):
        losses = [loss_of(each, batch) for batch in batches[:2]]  # two graphs at once
        for loss in reversed(losses):
            loss.backward()
        loss_of(each, batches[2]).backward()
    assert_equal(model, plain)


def test_a_graph_can_be_used_again_and_in_part() -> None:
    model, plain = build("mhc", "auto"), build("mhc", "off")
    for each in (model, plain):
        loss = loss_of(each)
        loss.backward(retain_graph=True)
        early = each.stack.connections[1].get_parameter("phi_res")
        late = each.stack.connections[4].get_parameter("b_post")
        parts = torch.autograd.grad(loss, [early, late], retain_graph=True)
        for parameter, part in zip((early, late), parts, strict=True):
            assert parameter.grad is not None
            assert torch.equal(parameter.grad, part)
        loss.backward()
    assert_equal(model, plain)


def test_frozen_parts_stay_frozen() -> None:
    model, plain = build("mhc", "auto"), build("mhc", "off")
    for each in (model, plain):
        frozen = [each.embedding, each.stack.layers[0], each.stack.connections[0], each.stack.connections[3]]
        for module in frozen:
            module.requires_grad_(False)
        loss_of(each).backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        assert ours.grad is None or theirs.grad is None or torch.equal(ours.grad, theirs.grad)


def test_overrides_are_those_of_the_forward_pass() -> None:
    """Backward comes when the context is over."""
    model, plain = build("mhc", "auto"), build("mhc", "off")
    for each in (model, plain):
        with each.stack.connections[2].override(h_res="mean", h_pre="fixed"):
            loss = loss_of(each)
        with each.stack.connections[4].override(h_post="fixed"):
            loss.backward()
    ours, theirs = ({name: p.grad for name, p in each.named_parameters()} for each in (model, plain))
    for name, gradient in theirs.items():
        assert (gradient is None) == (ours[name] is None)
        assert gradient is None or torch.equal(ours[name], gradient), name


@pytest.mark.parametrize(
    ("streams", "layers", "expected"),
    [(4, 24, 4), (4, 36, 5), (4, 60, 6), (4, 8, 2), (1, 1, 1), (2, 4, 1), (8, 122, 10)],
)
def test_auto_is_equation_20(streams: int, layers: int, expected: int) -> None:
    config = compose(["residual=mhc", "residual.recompute=auto", f"residual.streams={streams}"]).residual
    assert block_length(config, layers) == expected
    if layers > 4:  # of all lengths it keeps the least, or nearly so

        def held(length: int) -> int:
            return streams * -(-layers // length) + (streams + 2) * length

        assert held(expected) <= 1.05 * min(map(held, range(1, layers + 1)))


@pytest.mark.parametrize(("given", "length"), [("off", 0), ("false", 0), ("1", 1), ("7", 7)])
def test_the_setting(given: str, length: int) -> None:
    assert block_length(compose(["residual=mhc", f"residual.recompute={given}"]).residual, 8) == length


@pytest.mark.parametrize("given", ["0", "-1", "on", "2.5", "often", "''"])
def test_a_setting_outside_its_domain(given: str) -> None:
    with pytest.raises(LabError, match=r"residual.recompute=.*must be off, auto or a number of layers"):
        compose(["residual=mhc", f"residual.recompute={given}"])


def test_it_is_no_part_of_the_run_id() -> None:
    for variant in ("mhc", "hc", "identity", "identity_wide"):
        configs = [compose([f"residual={variant}", f"residual.recompute={block}"]) for block in ("off", "auto", 3)]
        assert len({run_id(config, "corpus") for config in configs}) == 1


# As tests/distributed runs two processes: Lightning starts the second rank by running the command again.
RUN = ("residual=mhc", "trainer.max_steps=4", "trainer.log_every=1", "trainer.probe_every=2")


def create(results: Path, config: RunConfig) -> RunFolder:
    return RunFolder.create(results, config, corpus_fingerprint(config))


def weights(folder: RunFolder) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(folder.checkpoint_file, weights_only=True)["model"]
    return found


def same_weights(one: RunFolder, other: RunFolder) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_is_the_same_run(tiny: Callable[..., RunConfig], tmp_path: Path) -> None:
    off, on = create(tmp_path / "off", tiny(*RUN)), create(tmp_path / "on", tiny(*RUN, "residual.recompute=auto"))
    assert run(off)["status"] == run(on)["status"] == "finished"
    assert off.run_id == on.run_id
    assert on.config().residual.recompute == "auto"
    assert same_weights(off, on)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_train_the_same(strategy: str, tiny: Callable[..., RunConfig], tmp_path: Path) -> None:
    folders = []
    for block in ("off", "auto"):
        settings = (f"trainer={strategy}", "trainer.accelerator=cpu", f"residual.recompute={block}")
        folders.append(create(tmp_path / block, tiny(*RUN, *settings)))
        command = [sys.executable, "-m", "mhc_lab.training.run", str(folders[-1].path)]
        environment = {**os.environ, "MHC_LAB_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert same_weights(*folders)
