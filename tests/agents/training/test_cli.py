"""What ``mtbench train`` says: a bar that fits, and the command that scores the agent."""

import io
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from mtbench_agents.training import cli as agent_cli
from mtbench_agents.training.settings import updated
from mtbench_agents.transformer.config import preset
from rich.console import Console


def test_the_bar_of_a_long_run_is_whole_on_80_columns():
    console = Console(file=io.StringIO(), width=80)
    numbers = {"returns": [-0.5127, -0.4941], "updates_per_second": 28.04}
    progress = agent_cli._progress(console, "updates", disable=False)
    progress.add_task("", total=4_000_000, completed=121_000, numbers=agent_cli._shown(numbers))
    console.print(progress.get_renderable())
    assert " 121000/4000000 updates 28.0/s  return -0.51 -0.49 0:00:00 -:--:--\n" in console.file.getvalue()


@pytest.mark.parametrize(
    ("env_id", "env", "split"),
    [
        ("MTPOPGym-v0", {"tasks": ["RepeatFirstEasy", "MineSweeperEasy"], "k": 1, "split": "train"}, None),
        ("ML45-v0", {}, None),
        ("ML45-v0", {"tasks": ["reach-v3"]}, "train"),  # the test split does not have it
    ],
)
def test_the_scoring_command_plays_what_the_agent_was_trained_on(env_id, env, split):
    config = updated(preset("debug", env_id), {f"env.{key}": value for key, value in env.items()})
    words = shlex.split(agent_cli._scoring(config, Path("runs/my agent")))
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert words[:3] == ["mtbench", "evaluate", env_id]
    assert (options["--policy"], options["--out"]) == ("runs/my agent", "runs/my agent/final")
    assert options.get("--split") == split
    given = [word for before, word in pairwise(words) if before == "--env"]
    assert agent_cli.parsed_options(given) == {key: value for key, value in env.items() if key != "split"}
