"""The notes below score tables: protocol, intervals, agents, scales, suite. Plain text: each format escapes it."""

from __future__ import annotations

from collections.abc import Iterator

from mtbench.audit import DESCRIPTIONS, MEASURES, NORMAL
from mtbench.scoring.aggregates import AGGREGATES, SUCCESS_AGGREGATES
from mtbench.scoring.intervals import MOST_DELETED_SINGLY, Estimate, t_quantile
from mtbench.scoring.scores import AgentScores, Scores
from mtbench.scoring.tables import LEAST, MARK, MOST, marked, shown_scales

FEW_RUNS = 5
MOST_ANCHOR_ERROR = 0.005  # of the scale


def notes(scores: Scores) -> list[str]:
    """One sentence or two each."""
    return [*_protocol(scores), *_intervals(scores), *_agents(scores), *_scales(scores), *_suite(scores)]


def _protocol(scores: Scores) -> Iterator[str]:
    counted = "the last attempt" if scores.objective == "k-shot" else "the mean of all attempts"
    yield (
        f"{scores.env_id}, {scores.split} split, {_count(len(scores.tasks), 'task')}, k = {scores.k} "
        f"({scores.objective}): the return of {counted} counts. normalized = (return - low) / (high - low)."
    )
    if scores.condition != NORMAL:
        yield f"Condition {scores.condition} of the adaptation audit: {DESCRIPTIONS[scores.condition]}."
    if any(own.audit for own in scores.agents):
        yield (
            "Adaptation audit: the same cases were played again under other conditions, and the table has what the "
            f"agent loses, paired by case. {_audited()}. 0: the agent gains nothing by it, however well it plays."
        )
    for task, twin in scores.repeated.items():
        yield f"{task} is the same environment as {twin} of the train split: 'new tasks' leaves it out."
    if scores.seen:
        by_share = sorted(scores.seen.items(), key=lambda item: -item[1])
        shares = ", ".join(f"{task} {100 * share:.1f} %" for task, share in by_share)
        yield (
            f"Training plays some of the {scores.split} split's evaluation variants too, or ones that begin exactly "
            f"alike, so scores there measure memory of training as well: {shares}."
        )
    for task, remark in scores.remarks.items():
        yield f"{task}: {remark}"
    yield from (f"{name}: {one.note}" for name, one in AGGREGATES.items() if one.note)
    if any(own.successes for own in scores.agents):
        yield from (f"{name}: {one.note}" for name, one in SUCCESS_AGGREGATES.items() if one.note)
    if scores.improvement:
        yield (
            "P(X > Y): how likely X scores above Y on a random task. Runs are compared where both agents have "
            "several, else single rollouts."
        )


def _audited() -> str:
    return "; ".join(f"{measured!r}: {DESCRIPTIONS[condition]}" for condition, measured in MEASURES.items())


def _intervals(scores: Scores) -> Iterator[str]:
    if scores.interval == "stratified-bootstrap":
        yield (
            f"Brackets are 95 % intervals of the stratified bootstrap (rliable's): the central 95 % of "
            f"{scores.replicates} replicates. It draws runs anew for every task, as if the tasks of a run had nothing "
            "in common. One run plays all tasks, so these intervals are too narrow: with 3 runs of 27 tasks that "
            "share half of their variance they contain the true mean 0.3 of the time instead of 0.95."
        )
        if any(not e.low <= e.value <= e.high for own in scores.agents for e in _all_estimates(own)):
            yield (
                "Some intervals leave out their estimate: replicates vary more than the data, so they are biased "
                "where a statistic bends, such as an optimality gap near 0."
            )
        return
    if any(own.runs > 1 for own in scores.agents):
        yield (
            "Brackets are 95 % intervals. For several runs: the estimate plus or minus Student's t times its "
            "standard error from leaving out one run at a time (the median of more than "
            f"{MOST_DELETED_SINGLY} runs: half of them), since one run plays all tasks."
        )
    if any(own.runs == 1 for own in scores.agents):
        yield (
            "Brackets of one run are 95 % intervals of a bootstrap of its rollouts, symmetric about the estimate "
            f"({scores.replicates} replicates)."
        )
    if any(
        e.low == e.high for e in [*scores.improvement.values(), *(e for a in scores.agents for e in _all_estimates(a))]
    ):
        yield (
            "An interval without width means that all runs, or all rollouts of one run, gave the same number, not that "
            "the next will."
        )


def _all_estimates(own: AgentScores) -> Iterator[Estimate]:
    yield from own.returns.values()
    yield from own.adaptation.values()
    yield from own.successes.values()
    for by_task in (own.attempts, own.success):
        for attempts in by_task.values():
            yield from attempts
    for by_scale in (own.normalized, own.aggregates, own.new):
        for by_name in by_scale.values():
            yield from by_name.values()


def _agents(scores: Scores) -> Iterator[str]:
    for own in scores.agents:
        line = f"{own.agent}: {_count(own.runs, 'run')} of {_count(own.rollouts, 'rollout')} per task"
        if own.runs > 1:
            yield f"{line}; runs are resampled."
        else:
            yield f"{line}; rollouts are resampled, so intervals leave out how much training runs differ."
        if 1 < own.runs < FEW_RUNS:
            yield (
                f"{own.agent}: with fewer than {FEW_RUNS} runs the spread between runs is itself hardly known. Its "
                f"intervals are {t_quantile(own.runs - 1):.1f} standard errors to each side (2.0 with many runs): a "
                "difference that they hide may be real."
            )
        if own.runs == own.rollouts == 1:
            yield f"{own.agent}: one rollout has no spread; its intervals mean nothing."
        for scale, end in own.defines.items():
            yield (
                f"{own.agent}'s policy defines the {end} of the scale {scale}, so its scores there are {end} by "
                "definition and no result; what differs is chance."
            )
        if own.privileged:
            yield f"{own.agent} is privileged: it reads hidden state that no agent sees."
        if own.task_label_exposed:
            yield f"{own.agent} was told the task."
    if scores.versions:
        yield f"Played with different versions, which may play differently: {'; '.join(_versions(scores))}."


def _versions(scores: Scores) -> Iterator[str]:
    for package, had in scores.versions.items():
        yield f"{package} {', '.join(f'{version} ({_listed(agents)})' for version, agents in had.items())}"


def _scales(scores: Scores) -> Iterator[str]:
    for name, tasks in scores.left_out.items():
        which = f"none of these {len(tasks)} tasks" if len(tasks) == len(scores.tasks) else _listed(tasks)
        lacking = f"it has a reference for {which}" if which.startswith("none") else f"it has no reference for {which}"
        yield f"Scale {name} is left out: {lacking}."
    for name, scale in scores.references.scales.items():
        yield f"Scale {name}: {scale.description}"
        for entry, tasks in _fallbacks(scores, name).items():
            yield f"Scale {name}: 1 is {entry} on {', '.join(tasks)}."
        uncertain = [task for task in scores.tasks if _anchor_error(scores, name, task) > MOST_ANCHOR_ERROR]
        if uncertain:
            most = max(_anchor_error(scores, name, task) for task in uncertain)
            yield (
                f"Scale {name}: its ends are means of finitely many rollouts. Their standard error is above "
                f"{MOST_ANCHOR_ERROR} of the scale, at most {most:.3f}, on {_listed(uncertain)}. Intervals leave "
                "this out."
            )
    if any(
        marked(own.normalized[s][t].value) for own in scores.agents for s in shown_scales(scores) for t in own.returns
    ):
        yield (
            f"{MARK} marks scores above {MOST:g} or below {LEAST:g}: there the ends of the scale lie close together "
            "or are out of date. Such tasks dominate a mean; the IQM leaves them out."
        )


def _anchor_error(scores: Scores, name: str, task: str) -> float:
    low, high = (end[task] for end in (scores.references.scales[name].low, scores.references.scales[name].high))
    return max(low.sem or 0.0, high.sem or 0.0) / (high.value - low.value)


def _suite(scores: Scores) -> Iterator[str]:
    references = scores.references
    used = {end[task].entry for s in references.scales.values() for end in (s.low, s.high) for task in scores.tasks}
    for entry, source in references.sources.items():
        if entry in used:
            yield f"{entry}: {source}"
    yield from references.warnings
    yield from references.notes_for(scores.tasks, scores.split)


def _fallbacks(scores: Scores, scale: str) -> dict[str, list[str]]:
    """Tasks whose upper anchor is not the scale's usual one, by the entry that serves instead."""
    entries = {task: scores.references.scales[scale].high[task].entry for task in scores.tasks}
    usual = max(set(entries.values()), key=list(entries.values()).count)
    grouped: dict[str, list[str]] = {}
    for task, entry in entries.items():
        if entry != usual:
            grouped.setdefault(entry, []).append(task)
    return grouped


def _listed(tasks: list[str], most: int = 12) -> str:
    more = f" and {len(tasks) - most} more" if len(tasks) > most else ""
    return f"{', '.join(tasks[:most])}{more}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
