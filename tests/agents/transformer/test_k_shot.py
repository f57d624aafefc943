"""Under k-shot, observations have one more number, and the agent takes it."""

import pytest

from agents.transformer.config import preset, updated
from agents.transformer.train import Trainer


def test_the_reference_agent_trains_on_the_longer_vector(tmp_path):
    pytest.importorskip("metaworld")
    env = {"objective": "k-shot", "tasks": ["reach-v3"], "k": 2, "max_steps": 12}
    config = updated(preset("debug"), {"env_id": "ML45-v0", "env": env, "updates": 2, "round_updates": 2})
    config = updated(config, {"collect": {"first_steps": 96}, "evaluate_rounds": 0})
    trainer = Trainer(config, tmp_path / "run")
    assert trainer.collector.envs.single_observation_space.shape == (42,)
    assert trainer.run()
