"""Where the agent departs from the published one: the paper (AMAGO-2) and the agent that its authors released.

    python -m mtbench_agents.transformer.departures      # the table, in Markdown

Each row says which settings give the published behaviour. Where paper and release differ, the paper counts.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Departure:
    """One difference.

    Attributes:
        published: What the published agent does.
        ours: What this agent does by default, and why.
        settings: ``key=value`` overrides that give the published behaviour; empty if there are none.
        source: Where the published behaviour is described.
    """

    published: str
    ours: str
    settings: tuple[str, ...]
    source: str


_RELEASE = "release, version 3.3.0"

DEPARTURES = (
    Departure(
        "A state's value is the mean over 3 sampled actions, which all critics judge.",
        "Every critic judges one sampled action of its own: 4 actions, for a third of the work.",
        ("learning.value_samples=3", "learning.shared_samples=true"),
        _RELEASE,
    ),
    Departure(
        "A TD target looks at two critics drawn with replacement, anew for each timestep and discount.",
        "Two different critics, drawn for each timestep: the paper's 2 of 4.",
        ('learning.pairs="discount"',),
        _RELEASE,
    ),
    Departure(
        "On POPGym, actions are imitated whose advantage is above 0.001; it is said not to matter.",
        "Above 0.",
        ("learning.filter_threshold=0.001",),
        _RELEASE,
    ),
    Departure(
        "Normalized inputs are clipped to 10,000 standard deviations.",
        "To 10: a rare input does not blow up a young network. Rewards that differ by more than that between tasks "
        "look alike, so a task cannot be told by the size of its rewards.",
        ("model.input_limit=10000",),
        _RELEASE,
    ),
    Departure(
        "The encoder's output is normalized by LayerNorm.",
        "It is not: each block of the Transformer begins with a LayerNorm.",
        ("model.encoder_norm=true",),
        _RELEASE,
    ),
    Departure(
        "With image encoders, previous rewards and actions enter by their symlog.",
        "They enter as they are.",
        ("model.symlog_inputs=true",),
        _RELEASE,
    ),
    Departure(
        "Probabilities of discrete actions are clipped to [0.001, 0.99], except on POPGym.",
        "To [0.000001, 1] everywhere, as on POPGym.",
        ("model.probability_floor=0.001", "model.probability_ceiling=0.99"),
        _RELEASE,
    ),
    Departure(
        "On POPGym, the replay holds 15,000 rollouts, whatever their lengths.",
        "A number of timesteps, as in the paper's other suites: memory and disk hold so many.",
        ("collect.replay_rollouts=15000",),
        "paper, Table 1",
    ),
    Departure(
        "Learning begins with the first data.",
        "After 1,000 steps of each environment: first batches would repeat a handful of rollouts.",
        ("collect.first_steps=0",),
        _RELEASE,
    ),
    Departure(
        "Layers start with PyTorch's default weights.",
        "The critics' first layer is initialized for each kind of input by itself, so that its output depends on the "
        "action from the start; policies begin nearly uniform.",
        (),
        _RELEASE,
    ),
)


def table() -> str:
    """In Markdown."""
    lines = ["| published | here | settings for the published way | source |", "| --- | --- | --- | --- |"]
    for row in DEPARTURES:
        settings = " ".join(f"`{setting}`" for setting in row.settings) or "none"
        lines.append(f"| {row.published} | {row.ours} | {settings} | {row.source} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
