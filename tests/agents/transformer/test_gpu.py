"""What only a GPU can show: graphs that are replayed do what ordinary calls do, and nothing waits for the device.

`python -m pytest tests/agents/transformer/test_gpu.py` on a machine with a GPU; elsewhere all of it is left out.
"""

import dataclasses

import numpy as np
import pytest
import torch
from mtbench_agents.transformer import acting as acting_module
from mtbench_agents.transformer import learner as learner_module
from mtbench_agents.transformer.acting import ActingModel, Player
from mtbench_agents.transformer.model import AgentModel
from mtbench_agents.transformer.train import Trainer

from .copycat import ACTIONS, CPU, answers, copycat, floats, make, trained_until
from .test_acting import LEARNING as ACTING_LEARNING
from .test_acting import MODEL as ACTING_MODEL
from .test_learner import near_the_fixed_point
from .test_train import TINY, trained

GPU = torch.device("cuda")

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def float32(monkeypatch):
    for module in (learner_module, acting_module):
        monkeypatch.setattr(module, "half_precision", lambda device: False)


@pytest.fixture
def same_draws(monkeypatch):
    """Compiled code draws the random numbers that ordinary calls draw."""
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor, "fallback_random", True)


def test_gradients_are_those_of_a_cpu(float32):
    """Without sampled actions and dropout: the generators of the two devices differ."""
    batch = copycat().sample(8, 12, np.random.default_rng(0))
    found = []
    for device in (CPU, GPU):
        learner = make("dependent", "dependent", compile=False, device=device)
        gradients, numbers = learner.gradients(learner.prepare(batch).slices)
        found.append(([g.cpu() for g in gradients if g is not None], floats(numbers)))
    (gradients, numbers), (on_gpu, numbers_of_gpu) = found
    assert numbers_of_gpu == pytest.approx(numbers, rel=1e-2)
    for mine, theirs in zip(on_gpu, gradients, strict=True):
        assert torch.allclose(mine, theirs, atol=0.02 * float(theirs.abs().max()) + 1e-6)


@pytest.mark.parametrize(("kind", "update"), [("discrete", "independent"), ("continuous", "dependent")])
def test_replayed_updates_are_ordinary_ones(kind, update, float32, same_draws):
    """Of batches of several shapes: the first two of each are ordinary calls, later ones are replayed.

    The filter lets everything through: an advantage near 0 may be above it in one and below it in the other.
    """
    changes = {"actions": ACTIONS[kind], "rate": 1e-4, "filter_threshold": -1e6, "ema_rate": 0.1, "device": GPU}
    plain, compiled = (make(update, update, compile=how, **changes) for how in (False, True))
    plain._fixed_length = compiled._fixed_length
    replay = copycat(continuous=kind == "continuous")
    for number in range(40):
        batch = replay.sample(8, 12, np.random.default_rng(number % 5))
        one, two = (floats(learner.update(batch)) for learner in (plain, compiled))
        assert one == pytest.approx(two, rel=0.02 if number < 5 else 0.15, abs=0.05), number
    assert any(shape.graph for shape in compiled._run._shapes.values())
    for mine, theirs in zip(compiled.model.optimized(), plain.model.optimized(), strict=True):
        assert float((mine - theirs).abs().mean()) < 5e-4  # of 40 steps of at most 1e-4
        assert float(compiled.optimizer.state[mine]["step"]) == float(plain.optimizer.state[theirs]["step"])


def test_a_replayed_update_draws_anew_and_learns():
    learner, replay = make(device=GPU), copycat()
    assert trained_until(lambda: answers(learner.model, device=GPU) > 0.9, learner, replay, 2000)
    batch = replay.sample(16, 12, np.random.default_rng(0))
    learner.total = 0  # its rate is 0 now
    values = []
    for _ in range(6):
        values.append(float(learner.update(batch)["value"]))
    assert len(set(values[3:])) == 3, "every update samples other actions"
    learner.updates -= 1
    assert float(learner.update(batch)["value"]) == pytest.approx(values[-1], rel=1e-3), "fixed by seed and update"

    learner.total = None
    with torch.no_grad():
        learner.model.target_critic.last_bias.fill_(torch.nan)
    before = [p.detach().clone() for p in learner.model.optimized()]
    learner.update(batch)
    assert all(map(torch.equal, before, learner.model.optimized())), "not finite: no weight changes"


def test_values_reach_the_fixed_point(monkeypatch):
    """In bfloat16, over 1,500 updates with a discount of 0.999."""
    value, share = near_the_fixed_point(True, 1.0, 1500, monkeypatch, GPU)
    assert value == pytest.approx(1000 / 3, rel=0.03)
    assert share > 0.1


def played(device, steps, compilable, size=5):
    """Actions, with the model and the draws of a fixed seed; rows begin anew now and then."""
    import gymnasium as gym

    space, actions = gym.spaces.Box(-5, 5, (3,), dtype=np.float32), gym.spaces.Discrete(7)
    model = AgentModel.seeded(0, ACTING_MODEL, ACTING_LEARNING, space, actions)
    with torch.no_grad():
        model.actor.out.weight.mul_(300)
    acting = ActingModel(model.to(device))
    acting.compilable = compilable
    player, rng = Player(size, actions, np.random.default_rng(3), device), np.random.default_rng(0)
    seen = []
    for t in range(steps):
        player.restart((np.arange(size) + t) % 171 == 0)
        seen.append(player.act(acting, rng.normal(size=(size, 3)).astype(np.float32)).copy())
        player.took(seen[-1])
        player.received(rng.normal(size=size).astype(np.float32))
    return np.array(seen)


def test_acting_is_that_of_a_cpu(float32):
    """Over more steps than one graph is for, and than a rollout's memory holds; rounding decides few actions."""
    cpu, ordinary, replayed = played(CPU, 300, False), played(GPU, 300, False), played(GPU, 300, True)
    assert len(np.unique(cpu)) == 7
    assert (ordinary == replayed).mean() > 0.99
    assert (cpu == replayed).mean() > 0.97


def test_nothing_waits_for_the_gpu():
    learner, replay = make(device=GPU), copycat()
    batch = replay.sample(16, 12, np.random.default_rng(0))
    for _ in range(4):
        learner.update(batch)
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for _ in range(3):
            learner.update(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("sync", [True, False])
def test_a_run_trains_and_goes_on(tmp_path, sync):
    """Collecting beside the learner too, with checkpoints in the middle of rollouts."""
    settings = {"sync": sync, "updates": 60, "round_updates": 20, "checkpoint_rounds": 1}
    begun = Trainer(dataclasses.replace(TINY, **settings), tmp_path / "run")
    begun.run(lambda numbers: begun.stop.set() if numbers["updates"] == 40 else None)
    resumed = Trainer(dataclasses.replace(TINY, **settings), tmp_path / "run")
    assert resumed.learner.updates == 40
    assert resumed.run()
    assert resumed.collector.steps > begun.collector.steps
    if sync:
        whole = trained(tmp_path / "whole", **settings)
        assert whole.collector.steps == pytest.approx(resumed.collector.steps, rel=0.05)
