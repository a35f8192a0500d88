import pytest

from mhc_lab.training.callbacks.spikes import THRESHOLD, SpikeCounter


def fed(losses):
    counter = SpikeCounter()
    for loss in losses:
        counter.add(loss)
    return counter


STEADY = [1.0, 2.0, 3.0, 4.0, 5.0] * 10  # median 3, MAD 1


@pytest.mark.parametrize(("excess", "spike"), [(-5.0, False), (THRESHOLD - 0.01, False), (THRESHOLD + 0.01, True)])
def test_a_spike_exceeds_the_median_by_6_scaled_mads(excess, spike):
    counter = fed(STEADY)
    assert counter.add(3.0 + excess) is spike
    assert counter.count == spike


def test_the_first_50_losses_are_not_judged():
    counter = fed(STEADY[:49])
    assert not counter.add(1000.0)
    assert counter.add(1000.0)


def test_a_window_without_spread_judges_nothing():
    assert not fed([3.0] * 50).add(1000.0)


def test_only_the_last_50_count():
    assert not fed([*STEADY, *[100.0, 110.0, 120.0, 130.0, 140.0] * 10]).add(125.0)
