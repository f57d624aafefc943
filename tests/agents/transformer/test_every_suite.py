"""One agent trains on every suite, with every preset, and a run that resumes is the run it would have been."""

import pytest
import torch
from mtbench_agents.training.settings import updated
from mtbench_agents.transformer.config import PRESETS, preset
from mtbench_agents.transformer.policy import load_run
from mtbench_agents.transformer.train import Trainer

from mtbench.registration import TABLE

from .test_resume import same

# Batches, memories and rollouts that a CPU works through in a test; everything else is the preset's.
REDUCED = {
    **{"sync": True, "updates": 50, "round_updates": 25, "checkpoint_rounds": 1, "evaluate_rounds": 0, "threads": 1},
    **{
        "learning.batch_size": 1,
        "learning.cooldown": 0,
        "model.context": 5,
        "collect.num_envs": 2,
        "collect.steps_per_update": 6.0,
    },
    **{"collect.first_steps": 40, "collect.replay": 400, "env.max_steps": 40},
}


IDS = {row.kwargs["suite"]: row.id for row in TABLE}  # one of each suite


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("env_id", IDS.values())
def test_it_trains_and_resumes_to_the_last_bit(env_id, name, tmp_path):
    config = updated(preset(name, env_id), REDUCED)

    def trained(folder, updates=50):
        trainer = Trainer(updated(config, {"updates": updates}), folder)
        assert trainer.run()
        return trainer

    whole = trained(tmp_path / "whole")
    trained(tmp_path / "cut", 25)
    resumed = trained(tmp_path / "cut")
    assert resumed.learner.updates == 50
    same(whole, resumed)
    lines = whole.log.read()
    assert [line["updates"] for line in lines] == [25, 50]
    policy = load_run(tmp_path / "whole")
    acting = whole.learner.acting.state_dict()
    assert all(torch.equal(value, acting[key]) for key, value in policy._model.state_dict().items())
