import numpy as np
import pytest


@pytest.fixture(autouse=True)
def draws_of_its_own(request):
    """Each test draws from the beginning of its module's generator, in whatever order tests run."""
    rng = getattr(request.module, "RNG", None)
    if rng is not None:
        rng.bit_generator.state = np.random.default_rng(0).bit_generator.state
