import numpy as np
import pandas as pd
import pytest
from mtbench_agents.oracle import Oracle

from mtbench.cases import evaluation_cases
from mtbench.evaluation import evaluate
from mtbench.playing import SingleRows, VectorRows, columns, make_rows, play
from mtbench.registration import find
from mtbench.suite import load_suite
from tests import toy

# A few short tasks of every suite.
TASKS = {
    "MTPOPGym-v0": ["MineSweeperEasy", "RepeatFirstEasy", "PositionOnlyCartPoleEasy"],
    "MTProcgen-Easy-v0": ["coinrun", "leaper"],
    "MTBabyAI-v0": ["BabyAI-GoToObjS4-v0", "BabyAI-OpenRedDoor-v0"],
    "ML10-v0": ["drawer-open-v3"],
    "MTAtari-v0": ["boxing", "pong"],
}
SPLITS = {"MTBabyAI-v0": ["BabyAI-GoToObjS4-v0"]}
LIMIT = 60


class Reader:
    """Acts by what it sees and remembers of its own row alone, so that records must not depend on the other rows."""

    def start(self, num_envs, seed, observation_space, action_space):
        self.space, self.steps, self.paid = action_space, np.zeros(num_envs, int), np.zeros(num_envs)

    def act(self, observations, reset_mask):
        self.steps[reset_mask] = 0
        self.steps += 1
        parts = list(observations.values()) if isinstance(observations, dict) else [observations]
        n = len(self.steps)
        seen = sum(np.abs(part.reshape(n, -1).astype(np.float64)).sum(axis=1) for part in parts)
        number = (np.floor(seen * 7) + self.steps * 3).astype(np.int64)
        if hasattr(self.space, "n"):
            return number % int(self.space.n)
        return np.sin(number[:, None] + np.arange(self.space.shape[0])).astype(np.float32)


@pytest.mark.parametrize("env_id", TASKS)
def test_records_do_not_depend_on_the_number_of_rows_or_on_how_they_are_stepped(env_id):
    arguments = {"split": "test", "max_steps": LIMIT}
    tasks = SPLITS.get(env_id, TASKS[env_id])
    runs = []
    for n, privileged in ((3, True), (1, False), (2, False), (7, False)):
        rows = make_rows(env_id, {**arguments, "tasks": tasks}, n, privileged)
        assert isinstance(rows, SingleRows if privileged else VectorRows)
        suite = load_suite((rows.environments[0] if privileged else rows._venv).suite.name)
        k = (rows.environments[0] if privileged else rows._venv).k
        cases = evaluation_cases(suite, "test", tasks, 4, k)
        played = [rollout for ended in play(rows, Reader(), cases, 0) for rollout in ended]
        rows.close()
        runs.append(pd.DataFrame(columns(played)).sort_values(["task", "rollout", "attempt"]).reset_index(drop=True))
        assert len(runs[-1]) == len(cases) * k
    for run in runs[1:]:
        pd.testing.assert_frame_equal(run, runs[0], check_dtype=False)


@pytest.mark.parametrize("env_id", TASKS)
@pytest.mark.parametrize("privileged", [True, False])
def test_fewer_cases_than_rows(env_id, privileged):
    """The last shard has fewer, and may be a worker's first."""
    rows = make_rows(env_id, {"split": "test", "max_steps": 5}, 3, privileged)
    suite, task = find(env_id).suite, SPLITS.get(env_id, TASKS[env_id])[0]
    k = (rows.environments[0] if privileged else rows._venv).k
    policy = Oracle() if privileged and suite.oracle else Reader()
    played = [r for ended in play(rows, policy, evaluation_cases(suite, "test", [task], 2, k), 0) for r in ended]
    assert sorted(rollout.case.rollout for rollout in played) == [0, 1]
    rows.close()


def test_rows_that_wait_take_any_action(tmp_path):
    """A row without a case repeats its observation; what the policy says of it is not even looked at."""
    rows = make_rows("MTPOPGym-v0", {"split": "test"}, 2, False)
    cases = evaluation_cases(load_suite("popgym"), "test", ["MineSweeperEasy", "RepeatFirstEasy"], 1, 2)
    rows.begin(dict(enumerate(cases)))
    ended = {}
    while not ended:
        _, ended = rows.step([0, 0])
    (waits,) = ended
    still = rows.observations()[waits]
    for _ in range(5):
        rewards, ended = rows.step([None if i == waits else 1 for i in range(2)])
        assert rewards[waits] == 0
        assert not ended
        assert np.array_equal(rows.observations()[waits], still)
    rows.close()


@pytest.mark.parametrize("given", [27, -1, 1.5, None])
def test_an_action_that_does_not_exist_is_refused_alike(tmp_path, given):
    import gymnasium as gym

    messages = []
    for privileged in (True, False):
        rows = make_rows("MTPOPGym-v0", {"split": "test"}, 1, privileged)
        rows.begin({0: evaluation_cases(load_suite("popgym"), "test", ["MineSweeperEasy"], 1, 2)[0]})
        with pytest.raises(gym.error.InvalidAction) as error:
            rows.step([given])
        messages.append(str(error.value))
        rows.close()
    assert messages[0] == messages[1]


def test_a_suite_without_an_engine_is_played_on_single_environments(tmp_path, monkeypatch):
    toy.register(monkeypatch)
    rows = make_rows("Toy-v0", {}, 2, False)
    assert isinstance(rows, SingleRows)
    rows.close()


def test_too_few_actions_are_refused(tmp_path):
    class Short(Reader):
        def act(self, observations, reset_mask):
            return super().act(observations, reset_mask)[:-1]

    with pytest.raises(ValueError, match="returned 1 actions for 2 observations"):
        evaluate("MTPOPGym-v0", Short(), tmp_path / "run", rollouts_per_task=1, num_envs=2)
