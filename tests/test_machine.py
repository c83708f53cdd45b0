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
