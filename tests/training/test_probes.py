import pytest
import torch

from mhc_lab.data.module import LabData
from mhc_lab.training.callbacks.probes import curves, summary, trace
from mhc_lab.training.degenerate import perturbed_spread, verdict
from mhc_lab.training.module import build_model
from mhc_lab.training.run import run


def window(config):
    return next(iter(LabData(config).val_dataloader()))[0][:1]


@pytest.mark.parametrize(("variant", "streams"), [("identity", 1), ("mhc", 4), ("hc", 4)])
def test_a_probe_has_a_value_a_layer(variant, streams, tiny):
    config = tiny(f"residual={variant}")
    found = curves(trace(build_model(config, 256), window(config)))
    for name in ("gain_forward", "gain_backward", "composite_gain_forward", "composite_gain_backward", "spread"):
        assert len(found[name]) == 4
    assert torch.tensor(found["h_res"]).shape == (4, streams, streams)
    composites = torch.tensor(found["h_res_composite"])
    assert composites.shape == (4, streams, streams)
    assert torch.allclose(composites[-1], torch.tensor(found["h_res"][-1]))
    assert summary(found)["gain_forward"] == pytest.approx(1.0, abs=0.01)


def test_a_single_stream_has_gains_of_exactly_1(tiny):
    config = tiny("residual=identity")
    found = summary(curves(trace(build_model(config, 256), window(config))))
    assert found["gain_forward"] == found["composite_gain_backward"] == 1.0
    assert found["ds_error"] == found["stream_spread"] == 0.0


def test_probes_come_at_the_interval_at_step_10_and_at_the_end(folder):
    here = folder("trainer.max_steps=13", "trainer.probe_every=6")
    run(here)
    assert [line["step"] for line in here.gains()] == [6, 10, 12, 13]
    assert [line["step"] for line in here.metrics() if "gain_forward" in line] == [6, 10, 12, 13]


def test_probes_do_not_change_the_run(folder):
    losses = []
    for every in (0, 1):
        here = folder(f"trainer.probe_every={every}", "trainer.max_steps=5")
        losses.append(run(here)["metrics"]["val_loss"])
    assert losses[0] == losses[1]


def test_probes_cost_under_2_percent_of_a_nano_run_at_the_default_interval(folder):
    """Measured on a run of 20 steps, with 3 looks; a run of 300 steps takes 5 of them and 15 times the steps."""
    here = folder("model=nano", "data.batch_size=8", "model.blocks=4", "model.dim=64", "model.heads=4",
                  "model.sequence_length=128", "trainer.max_steps=20")  # fmt: skip
    looks = 3  # perturbed at birth, at step 10 and at the last step
    shares = []
    for _ in range(4):  # looks of some 10 ms, on cores that the other tests have too
        record = run(here)
        assert len(here.gains()) == looks - 1
        seconds = 300 * record["metrics"]["ms_per_step"] / 1000
        shares.append(5 * record["probe_seconds"] / looks / seconds)
        if shares[-1] < 0.02:
            return
    pytest.fail(f"{shares}")


@pytest.mark.parametrize(
    ("overrides", "degenerate"),
    [
        (("residual=identity",), False),  # one stream: there is nothing to be equal
        (("residual=mhc",), False),
        (("residual=mhc", "residual.h_pre=fixed", "residual.h_post=fixed"), True),
        (("residual=mhc", "residual.h_post=fixed"), True),
        (("residual=identity_hc", "residual.h_post=fixed"), True),
        (("residual=hc", "residual.h_pre=fixed", "residual.h_post=fixed"), False),
    ],
)
def test_degenerate_cells_are_named(overrides, degenerate, folder):
    record = run(folder(*overrides, "trainer.max_steps=10", "trainer.keep_checkpoint=none"))
    assert record["degenerate"]["degenerate"] is degenerate
    measured = record["degenerate"]["spread_perturbed"]
    assert (measured is None) == (overrides == ("residual=identity",))


def test_both_looks_must_see_equal_streams():
    assert verdict(1e-6, 1e-6)["degenerate"]
    assert not verdict(1e-6, 1e-2)["degenerate"]
    assert not verdict(1e-2, 1e-6)["degenerate"]
    assert verdict(1e-6, None)["degenerate"]  # a run of fewer than 10 steps
    assert not verdict(None, 0.0)["degenerate"]


def test_the_perturbed_look_leaves_no_trace(tiny):
    config = tiny("residual=mhc")
    model = build_model(config, 256)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first = perturbed_spread(model, config.residual, window(config), seed=3)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert first == perturbed_spread(model, config.residual, window(config), seed=3)
    assert first != perturbed_spread(model, config.residual, window(config), seed=4)
