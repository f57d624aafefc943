import numpy as np
import pytest
from gymnasium import spaces

from mtbench.policy import FunctionPolicy, Policy, PrivilegedPolicy, load_policy

FILE = """
import numpy as np

class Batched:
    def start(self, num_envs, seed, observation_space, action_space):
        self.n = num_envs
    def act(self, observations, reset_mask):
        return np.zeros(self.n, dtype=int)

instance = Batched()
def factory():
    return Batched()
def plain(observation):
    return int(observation[0] > 0)
number = 3
def two(a, b):
    return 0
class Nothing:
    pass
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("where", ["mine.py", "mine"])
@pytest.mark.parametrize("attribute", ["Batched", "instance", "factory"])
def test_batched_policies_load_by_path_and_module(folder, where, attribute):
    policy = load_policy(f"{where}:{attribute}")
    assert isinstance(policy, Policy)
    assert not isinstance(policy, PrivilegedPolicy)


def test_a_plain_function_acts_row_by_row(folder):
    policy = load_policy("mine.py:plain")
    assert isinstance(policy, FunctionPolicy)
    space = spaces.Box(-1, 1, (2,), dtype=np.float32)
    policy.start(3, 0, space, spaces.Discrete(2))
    batch = np.array([[1, 0], [-1, 0], [1, 1]], dtype=np.float32)
    assert policy.act(batch, np.zeros(3, dtype=bool)) == [1, 0, 1]


def test_a_plain_function_sees_dict_rows():
    space = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(0, 1, (1,), dtype=np.float32)})
    policy = FunctionPolicy(lambda observation: int(observation["a"]))
    policy.start(2, 0, space, spaces.Discrete(3))
    batch = {"a": np.array([2, 1]), "b": np.zeros((2, 1), dtype=np.float32)}
    assert policy.act(batch, np.zeros(2, dtype=bool)) == [2, 1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("randm", "Did you mean 'random'"),
        ("nowhere.py:x", "no file"),
        ("mine.py:plane", "Did you mean 'plain'"),
        ("no_such_module:x", "no module named"),
        ("mine.py:number", "neither a policy nor callable"),
        ("mine.py:two", "is no policy"),
        ("mine.py:Nothing", "is no policy"),
    ],
)
def test_what_is_no_policy_is_refused(folder, name, message):
    with pytest.raises(ValueError, match=message):
        load_policy(name)


def test_an_error_inside_the_users_module_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("import surely_not_installed\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        load_policy("broken:x")


def test_loading_leaves_the_import_path_alone(folder):
    import sys

    before = list(sys.path)
    load_policy("mine:plain")
    assert sys.path == before


def test_the_built_in_policies():
    assert not isinstance(load_policy("random"), PrivilegedPolicy)
    assert isinstance(load_policy("oracle"), PrivilegedPolicy)


def test_the_random_policy_is_seeded():
    space, actions = spaces.Box(0, 1, (1,)), spaces.Discrete(27)
    batches = []
    for seed in (1, 1, 2):
        policy = load_policy("random")
        policy.start(64, seed, space, actions)
        batches.append(np.concatenate([policy.act(None, np.zeros(64, dtype=bool)) for _ in range(20)]))
    assert np.array_equal(batches[0], batches[1])
    assert not np.array_equal(batches[0], batches[2])
    assert set(batches[0]) == set(range(27))
