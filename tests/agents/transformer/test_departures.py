"""The table of departures names settings that exist and that change what the agent does by default."""

import dataclasses
import subprocess
import sys

from mtbench_agents.training.settings import updated
from mtbench_agents.transformer.config import preset
from mtbench_agents.transformer.departures import DEPARTURES, table

from mtbench.options import parsed_options


def test_every_setting_exists_and_differs_from_the_paper_preset():
    paper = preset("paper")
    for row in DEPARTURES:
        for setting in row.settings:
            changed = updated(paper, parsed_options([setting]))
            assert changed != paper, setting
            assert dataclasses.asdict(changed).keys() == dataclasses.asdict(paper).keys()


def test_the_published_agent_can_be_made():
    settings = [setting for row in DEPARTURES for setting in row.settings]
    published = updated(preset("paper"), parsed_options(settings))
    assert published.learning.least == "of-expectations"
    assert published.learning.exact_expectations
    assert not published.learning.popart_learned
    assert published.model.probability_ceiling == 0.99


def test_the_table_is_printed():
    command = [sys.executable, "-m", "mtbench_agents.transformer.departures"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed == table()
    assert printed.count("\n") == 2 + len(DEPARTURES)
