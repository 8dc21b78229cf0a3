"""Options of ``--executor``: what has no meaning, or can't be reached, is told at once."""

from __future__ import annotations

import sys

import pytest

from fer_bench.launch.ray_cluster import Share, connect


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--executor", "rya"], "unknown executor 'rya'"),
        (["--gpus-per-run", "0.5"], "--gpus-per-run needs --executor ray"),
        (["--ray-address", "auto"], "--ray-address needs --executor ray"),
        (["--executor", "ray", "--device", "cuda:1"], "on a cluster Ray chooses the device of each run"),
        (["--executor", "ray", "--device", "cuda:0,cuda:1", "--jobs", "2"], "Ray chooses the device of each run"),
        (["--executor", "ray", "--device", "cpu", "--gpus-per-run", "1"], "a run on the CPU needs no GPU"),
        (["--executor", "ray", "--device", "cuda", "--gpus-per-run", "0"], "a run on a GPU needs one"),
        (["--executor", "ray", "--gpus-per-run", "2"], "--gpus-per-run 2 is out of range"),
        (["--executor", "ray", "--cpus-per-run", "0.5"], "--cpus-per-run 0.5 is not a whole number"),
        (["--executor", "ray", "--ray-address", "ray://head:10001"], "the driver must be on a node of the cluster"),
    ],
)
def test_what_has_no_meaning_is_told_before_anything_is_made(call, tmp_path, words, message):
    code, _, err = call("run", "baseline_resnet", "--dataset", "synthetic", "--home", tmp_path, *words)
    assert (code, message in err) == (1, True), err
    assert not list(tmp_path.iterdir())


def test_without_ray_the_error_says_what_to_install(call, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    connect.cache_clear()
    words = ["--dataset", "synthetic", "--executor", "ray", "--home", tmp_path]
    code, _, err = call("ablate", "rasn", *words)
    assert code == 1
    assert "--executor ray needs Ray, which can't be imported" in err
    assert "next:  pip install 'fer-bench[ray]'" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("share", "resources", "runs"),
    [
        (Share(), {"CPU": 8.0}, 8),
        (Share(3), {"CPU": 8.0, "GPU": 4.0}, 2),
        (Share(1, 0.25), {"CPU": 64.0, "GPU": 2.0}, 8),
        (Share(4, 0.25), {"CPU": 16.0, "GPU": 2.0}, 4),
        (Share(1, 0.1), {"CPU": 64.0, "GPU": 1.0}, 10),
        (Share(1, 1.0), {"CPU": 64.0}, 0),
    ],
)
def test_a_node_has_room_for_as_many_runs_as_its_cores_and_its_gpus_suffice_for(share, resources, runs):
    assert share.fits(resources) == runs
