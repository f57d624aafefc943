"""Runs that nobody played."""

from mtbench.records import Run, episodes_frame
from mtbench.suites.popgym import TASKS


def made_up(
    agent="mine",
    value=None,
    train_seed=None,
    rollouts=6,
    k=2,
    objective="k-shot",
    tasks=tuple(TASKS),
    success=lambda task, attempt, rollout: None,
    suite="popgym",
    split="test",
    **more,
):
    """A run whose attempt i on a task returns `value(task, i, rollout)`, and succeeds if `success(...)` says so."""
    value = value or (lambda task, attempt, rollout: attempt + rollout / 100)
    rows = [
        {
            "suite": suite,
            "split": split,
            "task": task,
            "variant": 0,
            "rollout": rollout,
            "attempt": attempt,
            "return": value(task, attempt, rollout),
            "length": 1,
            "success": success(task, attempt, rollout),
            "agent": agent,
            "train_seed": train_seed,
            "step": None,
        }
        for task in tasks
        for rollout in range(rollouts)
        for attempt in range(1, k + 1)
    ]
    manifest = {
        "env_id": "MTPOPGym-v0",
        "suite": suite,
        "split": split,
        "tasks": list(tasks),
        "k": k,
        "objective": objective,
        "rollouts_per_task": rollouts,
        "agent": agent,
        "train_seed": train_seed,
        "evaluation_version": 1,
        "env_kwargs": {},
        **more,
    }
    return Run(f"runs/{agent}-{train_seed}", episodes_frame(rows), manifest)
