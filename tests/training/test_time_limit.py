from mhc_lab.data.corpus import corpus_fingerprint
from mhc_lab.run_folder import RunFolder
from mhc_lab.training.run import run


def test_a_run_over_its_time_is_recorded_as_failed_with_how_far_it_came(tiny, tmp_path):
    config = tiny("residual=identity", "trainer.max_steps=1000000", "trainer.time_limit=1")
    folder = RunFolder.create(tmp_path, config, corpus_fingerprint(config))
    record = run(folder)
    assert record["status"] == "failed"
    assert record["reason"].startswith("over trainer.time_limit=1 s at step ")
    assert record["reason"].endswith(" of 1000000")
    assert record["seconds"] < 60
    assert not folder.begun_file.exists()


def test_no_limit_and_a_limit_of_time_enough_change_nothing(tiny, tmp_path):
    config = tiny("residual=identity", "trainer.max_steps=2", "trainer.time_limit=600")
    folder = RunFolder.create(tmp_path, config, corpus_fingerprint(config))
    assert run(folder)["status"] == "finished"
    free = tiny("residual=identity", "trainer.max_steps=2")
    assert RunFolder.create(tmp_path, free, corpus_fingerprint(free)).run_id == folder.run_id
