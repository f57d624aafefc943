import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tests run side by side; more threads than cores only wait for each other."""
    torch.set_num_threads(1)
