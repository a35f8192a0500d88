"""All toggles fixed, n streams are the plain residual (PAPER, Table 1's first row)."""

import pytest

from mhc_lab.training.run import run

FIXED = ("residual.h_pre=fixed", "residual.h_post=fixed", "residual.h_res=fixed")
LONG = ("trainer.max_steps=20", "trainer.log_every=1", "trainer.keep_checkpoint=none")


def curve(folder):
    record = run(folder)
    assert record["status"] == "finished"
    return [line["train_loss"] for line in folder.metrics() if "train_loss" in line] + [record["metrics"]["val_loss"]]


@pytest.mark.parametrize("variant", ["hc", "mhc"])
def test_all_fixed_reproduces_the_plain_loss_curve(variant, folder):
    plain = curve(folder("residual=identity", *LONG))
    ours = curve(folder(f"residual={variant}", *FIXED, *LONG))
    assert len(plain) == 21
    assert ours == pytest.approx(plain, abs=1e-5)
