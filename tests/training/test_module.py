import math

import pytest
import torch
import torch.nn.functional as F

from mhc_lab.data.module import LabData
from mhc_lab.residual import registry
from mhc_lab.training.module import ResidualLM, build_model, clip_gradients, init_key


def weights(config):
    return build_model(config, 256).state_dict()


def batches(config, count=3):
    loader = iter(LabData(config).train_dataloader())
    return [next(loader) for _ in range(count)]


@pytest.mark.parametrize("variant", [name for name in registry.variants() if name != "identity"])
def test_variants_share_backbone_weights_and_batches(variant, tiny):
    plain, other = tiny("residual=identity"), tiny(f"residual={variant}")
    theirs = weights(other)
    widened = ("up.weight", "out.weight") if variant == "identity_wide" else ()
    for name, value in weights(plain).items():
        if not name.endswith(widened):
            assert torch.equal(value, theirs[name]), name
    for ours, their_batch in zip(batches(plain), batches(other), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, their_batch, strict=True))


@pytest.mark.parametrize("change", ["control=true", "seed=1"])
def test_the_control_arm_and_another_seed_differ_in_weights_and_batches(change, tiny):
    base, other = tiny("residual=identity"), tiny("residual=identity", change)
    assert not torch.equal(weights(base)["embedding.weight"], weights(other)["embedding.weight"])
    assert not torch.equal(batches(base, 1)[0][0], batches(other, 1)[0][0])


def test_init_keys_of_seeds_and_arms_never_meet(tiny):
    keys = {init_key(tiny(f"seed={seed}", f"control={arm}")) for seed in (0, 1, 10) for arm in ("true", "false")}
    assert len(keys) == 6


def test_clipping_scales_to_the_norm_and_returns_the_one_before():
    layer = torch.nn.Linear(3, 1, bias=False)
    layer.weight.grad = torch.tensor([[3.0, 0.0, 4.0]])
    assert float(clip_gradients(layer, 1.0)) == pytest.approx(5.0)
    assert float(layer.weight.grad.norm()) == pytest.approx(1.0, abs=1e-5)


def test_a_clip_norm_of_0_leaves_the_gradients():
    layer = torch.nn.Linear(3, 1, bias=False)
    layer.weight.grad = torch.tensor([[3.0, 0.0, 4.0]])
    assert float(clip_gradients(layer, 0.0)) == pytest.approx(5.0)
    assert layer.weight.grad.tolist() == [[3.0, 0.0, 4.0]]


def validate(module, batches):
    for batch in batches:
        module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    return module.val_loss


def test_validation_is_weighted_by_scored_tokens(tiny):
    module = ResidualLM(tiny("residual=mhc"), 256).eval()
    tokens = torch.randint(256, (3, 9), generator=torch.Generator().manual_seed(0))
    inputs, targets = tokens[:, :-1], tokens[:, 1:].clone()
    targets[2, 2:] = -100
    with torch.no_grad():
        losses = F.cross_entropy(module.model(inputs).flatten(0, 1), targets.flatten(), reduction="sum")
        ragged = [(inputs[:2], targets[:2]), (inputs[2:], targets[2:])]
        assert validate(module, ragged) == pytest.approx(float(losses) / 18, rel=1e-6)
        assert validate(module, [(inputs, targets)]) == pytest.approx(float(losses) / 18, rel=1e-6)


def test_validation_does_not_hide_nan(tiny):
    module = ResidualLM(tiny("residual=identity"), 256).eval()
    batch = next(iter(LabData(tiny()).val_dataloader()))
    with torch.no_grad():
        module.model.head.weight[0, 0] = math.nan
        assert math.isnan(validate(module, [batch]))


def test_no_hyperparameters_are_saved(tiny):
    """A dataclass in hparams breaks a resume, which loads weights only."""
    assert not ResidualLM(tiny(), 256).hparams
