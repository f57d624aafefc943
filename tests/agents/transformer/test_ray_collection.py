"""Collectors on a Ray cluster: training goes on whatever happens to them, and no rollout counts twice."""

import os
import signal
import time
import warnings

import numpy as np
import pytest
import torch
from mtbench_agents.training.settings import updated
from mtbench_agents.transformer import remote_collectors
from mtbench_agents.transformer.acting import ActingModel
from mtbench_agents.transformer.collector import explored
from mtbench_agents.transformer.model import AgentModel
from mtbench_agents.transformer.remote_collectors import Actor
from mtbench_agents.transformer.train import Trainer
from mtbench_agents.transformer.trees import leaves

from mtbench.errors import UsageError
from mtbench.vector import make_vec
from tests.ray_nodes import joining, posix, ray, two_nodes

from .test_durability import held
from .test_resume import killed_at
from .test_train import TINY, trained

pytestmark = posix

REMOTE = updated(
    TINY,
    {"sync": False, "collectors": "ray:2", "updates": 24, "round_updates": 6, "collect.refresh_updates": 2},
)
ENVS = TINY.collect.num_envs


@pytest.fixture(scope="module")
def cluster():
    with two_nodes() as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def connected(cluster):
    with joining(cluster) as join:
        join()
        yield cluster


def listening(trainer):
    """What arrives."""
    arrived = []
    trainer.collector.on_collected = arrived.append
    return arrived


def lost(trainer, what):
    return sum(line["collectors"][what] for line in trainer.log.read())


def contents(rollouts):
    return {b"".join(leaf.tobytes() for leaf in leaves(rollout.observations)) for rollout in rollouts}


# ---- the loop ----


def test_training_goes_on_while_collectors_are_killed(tmp_path):
    # Of this task, no two rollouts are alike.
    changes = {"updates": 10**6, "collect.replay": 50_000, "env.tasks": ["RepeatFirstEasy"]}
    trainer = Trainer(updated(REMOTE, changes), tmp_path)
    arrived, victims, ended = listening(trainer), [(0, 0), (1, 0), (0, 1)], []
    update = trainer.learner.update

    def deadly(batch):
        came_from = {collected.identity[:2] for collected in arrived}
        if victims and victims[0] in came_from:
            number, _ = victims.pop(0)
            member = trainer.collector._members[number]
            os.kill(ray.get(member.actor.__ray_call__.remote(lambda actor: os.getpid())), signal.SIGKILL)
        if {(0, 2), (1, 1)} <= came_from:
            ended.append(trainer.learner.updates)
            if ended[-1] >= ended[0] + 2 * REMOTE.round_updates:  # what was lost is in the log
                trainer.stop.set()
        return update(batch)

    trainer.learner.update = deadly
    assert trainer.run() is False
    assert lost(trainer, "lost_collectors") == 3
    assert lost(trainer, "lost_rollouts") == 3 * ENVS
    assert lost(trainer, "lost_requests") >= 3
    identities = [collected.identity for collected in arrived]
    assert len(set(identities)) == len(identities) == len(trainer.replay)
    assert {identity[:2] for identity in identities} == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}
    for who in {identity[:2] for identity in identities}:
        numbers = [number for *own, number in identities if tuple(own) == who]
        assert numbers == list(range(len(numbers))), "none is missing between two that arrived"
    assert len(contents(collected.rollout for collected in arrived)) == len(arrived), "another actor draws others"
    assert len(list(held(trainer.replay))) == len(arrived)


def test_the_log_says_how_old_the_weights_were(tmp_path):
    trainer = Trainer(updated(REMOTE, {"updates": 60}), tmp_path)
    arrived = listening(trainer)
    trainer.run()
    lines = [line["collectors"] for line in trainer.log.read()]
    assert sum(line["rollouts"] for line in lines) == len(arrived)
    assert trainer.log.read()[-1]["epsilon"] == round(explored(REMOTE.collect, trainer.collector.steps), 4)
    assert {collected.version for collected in arrived} <= set(range(0, 60, 2))
    assert max(collected.version for collected in arrived) > 0
    assert all(0 <= line["lag_mean"] <= line["lag_max"] <= 60 for line in lines)
    assert max(line["lag_max"] for line in lines) > 0
    assert sum(line["bytes"] for line in lines) == sum(remote_collectors._size(c.rollout) for c in arrived)


def test_a_slow_learner_holds_its_collectors_back(tmp_path, monkeypatch):
    trainer = Trainer(updated(REMOTE, {"updates": 12}), tmp_path)
    update, flying, largest = trainer.learner.update, [], []
    arrive = trainer.collector._arrived

    def slow(batch):
        time.sleep(0.1)
        flying.append(len(trainer.collector._flying))
        return update(batch)

    def measured(future):
        found = arrive(future)
        largest.append(sum(len(collected.rollout.rewards) for collected in found))
        return found

    trainer.learner.update = slow
    monkeypatch.setattr(trainer.collector, "_arrived", measured)
    trainer.run()
    assert max(flying) <= 2 * remote_collectors._AHEAD
    # An answer has the steps of its request, and those before of rollouts that were under way.
    longest = max(max(largest), 1)
    assert longest <= ENVS * (remote_collectors._BATCH_STEPS + 201)
    per_update = REMOTE.collect.steps_per_update
    rounds = 12 // REMOTE.round_updates
    request = remote_collectors._BATCH_STEPS * ENVS
    ahead = rounds * 2 * remote_collectors._AHEAD * request
    assert trainer.collector.steps <= 100 + 12 * per_update + ahead + 2 * request, "it does not collect for ever"


def test_a_resumed_run_drops_what_was_under_way_and_says_so(tmp_path):
    config = updated(REMOTE, {"collect.replay": 50_000, "env.tasks": ["RepeatFirstEasy"]})
    killed_at(config, tmp_path, 13)
    resumed = Trainer(config, tmp_path)
    before = len(resumed.replay)
    assert before > 0
    arrived = listening(resumed)
    assert resumed.learner.updates == 12
    assert resumed.run()
    first, second = resumed.log.read()[2:4]
    assert first["collectors"]["dropped_by_resuming"] == 2 * ENVS
    assert second["collectors"]["dropped_by_resuming"] == 0
    replay = resumed.replay
    there = [replay.observations[start : start + length + 1].tobytes() for start, length in held(replay)]
    assert len(there) == len(set(there)) == before + len(arrived)


def test_a_run_moves_to_a_cluster_and_back(tmp_path):
    changes = {"sync": False, "round_updates": 6}
    trained(tmp_path, updates=6, **changes)
    there = Trainer(updated(REMOTE, {"updates": 12, "collect.refresh_updates": 100}), tmp_path)
    there.run()
    assert there.log.read()[-1]["collectors"]["dropped_by_resuming"] == ENVS
    back = trained(tmp_path, updates=18, **changes)
    assert back.learner.updates == 18
    assert back.collector.steps > there.collector.steps


def test_a_stop_is_heard_while_collecting(tmp_path):
    config = updated(REMOTE, {"collect.first_steps": 10**9})
    trainer = Trainer(config, tmp_path)
    trainer.collector.on_collected = lambda collected: trainer.stop.set()
    assert trainer.run() is False
    assert 0 < trainer.collector.steps < 10**6
    resumed = Trainer(config, tmp_path)
    assert resumed.collector.steps == trainer.collector.steps
    resumed.close()


# ---- an actor ----


def made(config=REMOTE, number=0, incarnation=0, begun=0):
    spec = remote_collectors.gym.spec(config.env_id)
    plan = remote_collectors._Plan(config, spec, {}, [], begun)
    return Actor(plan, number, incarnation)


def weights(config=REMOTE, action=None):
    envs = make_vec(config.env_id, 1, **config.env)
    spaces = envs.single_observation_space, envs.single_action_space
    model = ActingModel(AgentModel.seeded(config.seed, config.model, config.learning, *spaces))
    if action is not None:  # always this one
        with torch.no_grad():
            model.actor.out.bias.view(-1, 27)[:, action] = 1000.0
    return [ray.put(model.weights())]


def played(actor, given, steps=400, done=0, version=0):
    found, taken = actor.collect(version, given, done, steps)
    assert taken >= steps
    return found


def test_an_actor_plays_alike_wherever_it_is():
    given = weights()
    there = ray.remote(Actor).remote(made()._plan, 0, 0)
    one = ray.get(there.collect.remote(0, given, 0, 400))[0]
    two = played(made(), given)
    assert [c.identity for c in one] == [c.identity for c in two]
    assert contents(c.rollout for c in one) == contents(c.rollout for c in two)
    assert len(two) > 3


@pytest.mark.parametrize("other", [{"number": 1}, {"incarnation": 1}, {"begun": 100}])
def test_another_actor_plays_other_rollouts(other):
    given = weights()
    one, two = (contents(c.rollout for c in played(made(**how), given)) for how in ({}, other))
    assert not one & two


def test_a_rollout_has_the_version_of_the_weights_that_began_it():
    config = updated(REMOTE, {"collect.epsilon_start": 0.0, "collect.epsilon_end": 0.0})
    given = {version: weights(config, action=version) for version in (3, 5, 8)}
    actor, seen = made(config), []
    for version in (3, 5, 5, 8, 3, 8):
        seen += played(actor, given[version], 60, version=version)
    assert {c.version for c in seen} == {3, 5, 8}
    assert all(c.rollout.actions[0] == c.version for c in seen)
    assert any(len(set(c.rollout.actions.tolist())) > 1 for c in seen), "others took over in the middle"


def test_exploration_follows_the_steps_of_all():
    actor, given = made(), weights()
    for done in (0, 150_000, 10**9):
        actor.collect(0, given, done, 1)
        assert actor._collector.epsilon == pytest.approx(explored(REMOTE.collect, done), abs=1e-3)


# ---- what is refused ----


def test_another_version_on_a_node_is_refused(tmp_path, monkeypatch):
    versions = remote_collectors.versions
    monkeypatch.setattr(remote_collectors, "versions", lambda names: {**versions(names), "torch": "1.0"})
    with pytest.raises(UsageError, match=r"Node .* has other versions than this process: torch .* there and 1\.0 here"):
        Trainer(REMOTE, tmp_path).run()


def test_an_error_of_an_environment_is_raised_here(tmp_path, monkeypatch):
    def broken(plan):
        raise OSError("the simulator is gone")

    class Broken(Actor):
        def _made(self):
            return broken(self._plan)

    monkeypatch.setattr(remote_collectors, "Actor", Broken)
    with pytest.raises(OSError, match="the simulator is gone"):
        Trainer(REMOTE, tmp_path).run()


def test_collectors_that_are_lost_time_and_again_end_the_run(tmp_path, monkeypatch):
    class Deadly:
        def __init__(self, *arguments):
            pass

        def collect(self, *arguments):
            os.kill(os.getpid(), 9)

    monkeypatch.setattr(remote_collectors, "Actor", Deadly)
    monkeypatch.setattr(remote_collectors, "_MOST_LOSSES", 1)
    with pytest.raises(UsageError, match=r"Collector . was lost 2 times in a row: .* Is there enough memory for 3 env"):
        Trainer(REMOTE, tmp_path).run()


def test_more_collectors_than_cpus_are_warned_of(tmp_path):
    with pytest.warns(UserWarning, match="has 2 CPUs for 3 collectors"):
        Trainer(updated(REMOTE, {"collectors": "ray:3"}), tmp_path).close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sync": True}, "exactly repeatable, which collectors on a Ray cluster are not"),
        ({"collectors": "ray"}, "local or ray:N"),
        ({"collectors": "ray:0"}, "local or ray:N"),
        ({"collectors": "rey:2"}, "local or ray:N"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        updated(REMOTE, change)


def test_an_address_needs_remote_collectors(tmp_path):
    with pytest.raises(UsageError, match="needs --collectors ray:N"):
        Trainer(TINY, tmp_path, address="127.0.0.1:6379")


def test_weights_arrive_as_they_were_sent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of read-only memory, say
        actor = made()
        given = weights(action=4)
        actor.collect(7, given, 0, 1)
    sent = ray.get(given[0])
    for one, two in zip(sent, actor._acting.weights(), strict=True):
        assert np.array_equal(one, two)
