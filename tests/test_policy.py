import sys

import numpy as np
import pytest
from gymnasium import spaces

from mtbench.policy import FunctionPolicy, Policy, PrivilegedPolicy, fingerprint, load_policy

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
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
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
        (":act", "names no policy"),
        (".mine:act", "names no policy"),
        ("builtins:max", "is no policy"),
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


@pytest.mark.parametrize("where", ["user/mine2.py", "user.mine2"])
def test_a_policy_finds_what_lies_beside_it_even_while_it_acts(tmp_path, monkeypatch, where):
    (tmp_path / "user").mkdir()
    (tmp_path / "beside_it.py").write_text("answer = 7\n")
    (tmp_path / "user" / "beside_it.py").write_text("answer = 7\n")
    (tmp_path / "user" / "mine2.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass Answer:\n    value: int\n\n"
        "def act(obs):\n    from beside_it import answer\n    return Answer(answer).value\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    policy = load_policy(f"{where}:act")
    space = spaces.Box(-1, 1, (2,), dtype=np.float32)
    policy.start(1, 0, space, spaces.Discrete(9))
    assert policy.act(np.zeros((1, 2), dtype=np.float32), np.zeros(1, dtype=bool)) == [7]


def test_functions_with_defaults_are_plain_functions(tmp_path):
    (tmp_path / "more.py").write_text(
        "def act(obs=None, scale=2):\n    return 0\ndef keyword(obs, *, needed):\n    pass\n"
    )
    assert isinstance(load_policy(f"{tmp_path}/more.py:act"), FunctionPolicy)
    with pytest.raises(ValueError, match="is no policy"):
        load_policy(f"{tmp_path}/more.py:keyword")


def test_an_edited_policy_has_another_fingerprint(folder):
    load_policy("mine.py:plain")
    before = fingerprint("mine.py:plain")
    (folder / "mine.py").write_text(FILE + "# edited\n")
    assert before is not None
    assert fingerprint("mine.py:plain") != before
    assert fingerprint("random") is None


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
