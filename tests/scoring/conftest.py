import numpy as np
import pytest

from mtbench.scoring import score
from tests.scoring.runs import made_up


@pytest.fixture(autouse=True)
def draws_of_its_own(request):
    """Each test draws from the beginning of its module's generator, in whatever order tests run."""
    rng = getattr(request.module, "RNG", None)
    if rng is not None:
        rng.bit_generator.state = np.random.default_rng(0).bit_generator.state


@pytest.fixture(scope="module")
def two_agents():
    """The scores of two agents, one of them with a name that formats must escape."""
    return score([made_up("mine_1"), made_up("a|b & c <d>", privileged=True)])
