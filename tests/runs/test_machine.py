"""What the machine can compute on: told by a process, and turned into a precision or a clear error."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fer_bench.errors import TrainingError
from fer_bench.runs import worker
from fer_bench.runs.machine import Machine, this_machine
from fer_bench.training import fit

CPU = Machine(gpus=0, apple=False, gpu_bf16=False, cpu_bf16=False)
GPUS = Machine(gpus=2, apple=False, gpu_bf16=True, cpu_bf16=False)


def test_the_process_sees_what_torch_sees_here():
    found = this_machine()
    assert found.gpus == (torch.cuda.device_count() if torch.cuda.is_available() else 0)
    assert found.cpu_bf16 == (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@pytest.mark.parametrize(
    ("machine", "device", "precision", "gpu"),
    [
        (CPU, "auto", "fp32", False),
        (GPUS, "auto", "bf16", True),
        (GPUS, "cuda:1", "bf16", True),
        (GPUS, "cpu", "fp32", False),
        (Machine(gpus=0, apple=False, gpu_bf16=False, cpu_bf16=True), "cpu", "bf16", False),
        (Machine(gpus=1, apple=False, gpu_bf16=False, cpu_bf16=True), "auto", "fp32", True),
    ],
)
def test_precision_follows_the_device_that_is_used(machine, device, precision, gpu):
    assert machine.fast_precision(device) == precision
    assert machine.has_gpu(device) is gpu


@pytest.mark.parametrize(
    ("machine", "device", "said"),
    [(CPU, "cuda", "no CUDA device"), (GPUS, "cuda:2", "cuda:0 to cuda:1"), (CPU, "mps", "no Apple GPU")],
)
def test_a_device_that_is_not_there_is_told(machine, device, said):
    with pytest.raises(TrainingError, match=said):
        machine.check(device)
    GPUS.check("cuda:1")


def test_a_driver_trains_without_torch(workplace, plugin_folder):
    """The whole command, from its options to its report."""
    script = (
        "import sys\nfrom fer_bench.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules"
    )
    command = ["run", "baseline_resnet", "--dataset", "tiny", "--plugins", str(plugin_folder), "--seeds", "1"]
    command += ["--recipe", "demo", "--epochs", "1", "--precision", "auto", "--no-track", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", script, *command, "--home", str(workplace.home.root)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "report:" in done.stdout


# -- other systems ---------------------------------------------------------------------------------------------------


def test_macos_is_asked_for_the_processors_name_by_a_program(monkeypatch):
    def run(command, **options):
        assert command == ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.CompletedProcess(command, 0, stdout="Apple M2\n")

    monkeypatch.setattr(worker.sys, "platform", "darwin")
    monkeypatch.setattr(worker.subprocess, "run", run)
    assert worker._cpu_name() == "Apple M2"


def test_a_processor_whose_name_nobody_tells_still_has_one(monkeypatch):
    def fail(*args, **options):
        raise FileNotFoundError

    monkeypatch.setattr(worker.sys, "platform", "darwin")
    monkeypatch.setattr(worker.subprocess, "run", fail)
    monkeypatch.setattr("builtins.open", fail)
    monkeypatch.setattr(worker.platform, "processor", lambda: "")
    assert worker._cpu_name() == "unknown CPU"


def test_a_feature_that_torch_does_not_know_is_not_there():
    assert worker._cpu_has("of_next_year") is False


@pytest.mark.parametrize(("device", "kind"), [("mps", torch.float32), ("cpu", torch.float64), ("cuda", torch.float64)])
def test_sums_of_an_epoch_are_float64_where_the_device_has_it(device: str, kind: torch.dtype):
    assert fit._sum_type(torch.device(device)) == kind
