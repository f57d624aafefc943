import pytest


@pytest.fixture(autouse=True)
def one_thread():
    """More only slow such small networks down, and other tests."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
