import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from transfer import machine
from transfer.errors import UsageError


def test_the_cpu_can_always_be_asked_for() -> None:
    assert machine.pick_device("cpu") == torch.device("cpu")
    assert machine.count_cores() >= 1
    assert machine.describe_processor()


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "mps:7"])
def test_a_device_that_is_not_here_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        machine.pick_device(name)


def test_the_number_of_threads_is_set_back() -> None:
    before = torch.get_num_threads()
    with machine.torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("files", "share"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
        ({"cpu.max": "?"}, None),
    ],
)
def test_a_containers_share_of_the_cores_is_read(tmp_path: Path, files: dict[str, str], share: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine._container_share(tmp_path) == share


def test_float32_settings_are_left_as_they_were() -> None:
    before = torch.get_float32_matmul_precision()
    with machine.full_float32(torch.device("cpu")), machine.repeatable(torch.device("cpu"), exact=False):
        assert torch.get_float32_matmul_precision() == before
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.skipif(sys.platform == "win32", reason="the system does not tell")
def test_the_peak_of_memory_is_this_process_s_own() -> None:
    held = np.ones(30_000_000)  # 240 MB, which a child must not be charged with
    code = "from transfer.machine import peak_memory; print(peak_memory())"
    child = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    own = machine.peak_memory()
    assert own is not None
    assert own > held.nbytes
    if sys.platform.startswith("linux"):
        assert child < own
