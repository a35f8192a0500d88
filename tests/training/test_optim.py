import itertools

import pytest
import torch

from mhc_lab.config.schema import OptimConfig
from mhc_lab.training.module import build_model
from mhc_lab.training.optim import decays, learning_rate_factor, parameter_groups


def factors(steps, **settings):
    return [learning_rate_factor(step, OptimConfig(**settings), steps) for step in range(steps)]


def test_warm_up_is_linear_and_full_at_its_last_step():
    assert factors(10, warmup_steps=4, schedule="constant") == [0.25, 0.5, 0.75] + [1.0] * 7


def test_without_warm_up_the_first_step_has_the_base_rate():
    assert factors(3, warmup_steps=0, schedule="constant") == [1.0] * 3


def test_step_schedule_drops_at_8_and_9_tenths_of_training():
    found = factors(100, warmup_steps=0, schedule="step")
    assert found == [1.0] * 80 + [0.316] * 10 + [0.1] * 10


def test_cosine_falls_from_the_base_rate_to_its_minimum_at_the_last_step():
    found = factors(101, warmup_steps=0, schedule="cosine", min_ratio=0.2)
    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.6)
    assert found[-1] == pytest.approx(0.2)
    assert all(later < earlier for earlier, later in itertools.pairwise(found))


@pytest.mark.parametrize("schedule", ["step", "cosine", "constant"])
def test_a_warm_up_longer_than_training_never_exceeds_the_base_rate(schedule):
    found = factors(10, warmup_steps=20, schedule=schedule)
    assert all(0 < factor <= 0.5 for factor in found)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("stack.connections.0.phi_pre", (8, 2), True),
        ("stack.layers.0.qkv.weight", (8, 8), True),
        ("stack.connections.0.b_res", (4, 4), False),  # hc's is a matrix, and a bias all the same
        ("stack.connections.0.alpha_res", (1,), False),
        ("stack.layers.0.norm.weight", (8,), False),
    ],
)
def test_only_matrices_decay(name, shape, expected):
    assert decays(name, torch.zeros(shape)) is expected


@pytest.mark.parametrize("variant", ["identity", "hc", "mhc"])
def test_the_groups_hold_every_parameter_once(variant, tiny):
    model = build_model(tiny(f"residual={variant}"), 256)
    groups = parameter_groups(model.named_parameters(), 0.1)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
