import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tests run side by side; more threads than cores only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    """A learner's update seeds PyTorch itself; what a test draws outside of one is the same each time, too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
