"""What the processes do that test_distributed.py starts with torchrun.

python -m torch.distributed.run --nproc-per-node 2 -m tests.agents.transformer.ranks learn OUT
python -m torch.distributed.run --nproc-per-node 2 -m tests.agents.transformer.ranks train OUT PLAN [ID OPTION...]
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from mtbench_agents.transformer import evaluating, graphs, train
from mtbench_agents.transformer.distributed import joined
from mtbench_agents.transformer.learner import Learner, NonFiniteLossError, Totals
from mtbench_agents.transformer.model import AgentModel
from mtbench_agents.transformer.replay import Batch
from mtbench_agents.transformer.trees import leaves

from .copycat import ACTIONS, COMBINATIONS, CPU, LEARNING, MODEL, copycat, make

UPDATES = 21


def cases():
    """Every combination of losses and actions, in one of the ways to lay out and run an update."""
    for i, (actor, critic) in enumerate(COMBINATIONS):
        yield actor, critic, "discrete" if i in (0, 3) else "continuous", "plain" if i in (0, 2) else "padded"
    yield "independent", "independent", "discrete", "compiled"


@contextlib.contextmanager
def repeatable(double):
    """Draws are constants, and numbers are of double precision: between two runs, only the order of sums differs.

    What is compiled stays in single precision, since a compiler does not see the patched conversion.
    """
    # The compiler notes at its first graph which functions are PyTorch's: it must see these, and not the constants.
    torch.compile(torch.neg, backend="eager")(torch.zeros(1))
    kept = {name: getattr(torch, name) for name in ("rand", "randn")}
    single, backend = torch.Tensor.float, graphs.BACKEND
    for name, value in (("rand", 0.6), ("randn", 0.3)):
        setattr(torch, name, lambda *size, value=value, **_: torch.full(size[0] if len(size) == 1 else size, value))
    graphs.BACKEND = "aot_eager"
    if double:
        # Flags stay single: they are 0 and 1, and the optimizer's must be.
        torch.Tensor.float = lambda self: single(self) if self.dtype == torch.bool else self.double()
        torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.Tensor.float, graphs.BACKEND = single, backend
        for name, function in kept.items():
            setattr(torch, name, function)


def learnt(ranks, actor, critic, kind, layout):
    """A model after some updates with batches that do not depend on who learns; and this rank's transitions."""
    double = layout != "compiled"
    with repeatable(double):
        return _learnt(ranks, actor, critic, kind, layout, np.float64 if double else np.float32)


def _learnt(ranks, actor, critic, kind, layout, precision):
    space, actions = gym.spaces.Box(-5, 5, (3,), dtype=np.float32), ACTIONS[kind] or gym.spaces.Discrete(3)
    learning = dataclasses.replace(LEARNING, actor=actor, critic=critic, compile=layout == "compiled", ema_rate=0.5)
    model = AgentModel.seeded(0, MODEL, learning, space, actions)
    learner = Learner(model, learning, 0, CPU, context=MODEL.context, ranks=ranks)
    learner._fixed_length = None if layout == "plain" else MODEL.context
    replay, own = copycat(continuous=kind == "continuous"), []
    for update in range(2 if layout == "compiled" else UPDATES):
        batch = replay.sample(16, MODEL.context, np.random.default_rng(update))
        order = np.argsort(batch.mask.sum(axis=1), kind="stable")
        # Rank 0 has a few short slices, the last rank all the others.
        part = np.array_split(order, [5])[ranks.rank] if ranks.count == 2 else order
        own.append(int(batch.mask[part].sum()))
        prepared = learner.prepare(rows_of(batch, part, precision))
        weight = prepared.slices.weight
        if weight is not None and precision is np.float64:
            prepared = dataclasses.replace(prepared, slices=prepared.slices._replace(weight=weight.double()))
        numbers = learner.update(prepared)
    return {**model.state_dict(), **{f"log.{name}": value for name, value in numbers.items()}}, own


def rows_of(batch, rows, precision):
    """Some slices of a batch, as long as the longest of them."""
    longest = int(batch.mask[rows].sum(axis=1).max())

    def part(name):
        array = getattr(batch, name)[rows]
        if array.ndim > 1:
            array = array[:, : longest + (name in ("observations", "actions", "rewards"))]
        return array.astype(precision) if array.dtype == np.float32 else array

    return Batch(*map(part, Batch.__slots__))


def learn(out):
    """All cases, on ranks: their models and numbers of transitions go to files, and what happens at a NaN."""
    with joined() as ranks:
        found = [learnt(ranks, *case) for case in cases()]
        said = [refused(ranks, what) for what in ("inputs", "loss")]
    torch.save(found, f"{out}/rank-{ranks.rank}.pt")
    Path(f"{out}/rank-{ranks.rank}.json").write_text(json.dumps(said))


def refused(ranks, what):
    """What a learner says, and whether no weight changed, where the last rank alone has a NaN."""
    learner, batch = make(ranks=ranks), copycat().sample(16, MODEL.context, np.random.default_rng(0))
    before = [parameter.detach().clone() for parameter in learner.model.optimized()]
    if ranks.rank == ranks.count - 1:
        if what == "inputs":
            batch.rewards[0, 1] = np.nan
        else:
            learner.losses.targets = lambda t: torch.full((len(t), 2), torch.nan)
    totals = Totals()
    try:
        totals.add(learner.update(batch))
        totals.read()
    except NonFiniteLossError as error:
        return str(error), all(map(torch.equal, before, learner.model.optimized()))
    return "nothing", False


# ---- training runs ----


class Planned(train.Trainer):
    """A trainer to which something happens on one rank, once in a run.

    PLAN may have, besides the rank: "kill" (the update before which it kills itself), "nan" (the update at which a
    reward is NaN), "stop" (the update at which it is told to stop, by SIGTERM).
    """

    plan, out = {}, ""

    def _set_up(self):
        super()._set_up()
        self.tell("begun")
        if self.ranks.rank == self.plan.get("rank"):
            self.learner.update = self.planned(self.learner.update)
            self.learner.prepare = self.poisoned(self.learner.prepare)

    def run(self, on_round=None):
        complete = super().run(on_round)
        self.tell("ended")
        return complete

    def tell(self, when):
        """Write what this rank has to a file."""
        hashes = []
        for age in range(len(self.replay)):
            one = self.replay.rollout(age)
            parts = (*leaves(one.observations), one.actions, one.rewards, np.array([one.terminated, one.task]))
            hashes.append(digest(parts))
        told = {
            "rollouts": hashes,
            "timesteps": self.replay.timesteps,
            "unfinished": self.collector._length.tolist(),
            "memory": [float(m) for m in self.collector._player.previous_reward],
            "steps": self.collector.steps,
            "weights": digest(tensor.numpy() for tensor in self.model.state_dict().values()),
        }
        Path(f"{self.out}/{when}-{self.ranks.rank}.json").write_text(json.dumps(told))

    def planned(self, update):
        def when(prepared):
            if self.learner.updates == self.plan.get("kill") and not Path(f"{self.out}/killed").exists():
                Path(f"{self.out}/killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if self.learner.updates == self.plan.get("stop"):
                os.kill(os.getpid(), signal.SIGTERM)
            return update(prepared)

        return when

    def poisoned(self, prepare):
        def when(batch):
            if self.learner.updates == self.plan.get("nan"):
                batch.rewards[0, 1] = np.nan
            return prepare(batch)

        return when


def digest(arrays):
    """Of all that they hold."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def watch(rank, out):
    """Note the files that this process opens to write, makes or renames."""
    file = os.open(f"{out}/written-{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event, arguments):
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir"):
            os.write(file, f"{arguments[0]}\n".encode())

    sys.addaudithook(hook)


def command(out, plan, arguments):
    """The command line of ``mtbench train`` with the planned trainer."""
    from mtbench import cli

    Planned.plan, Planned.out = json.loads(plan), out
    train.Trainer = Planned
    play = evaluating.play_shard

    def counted(*them):
        with Path(f"{out}/played-{os.environ['RANK']}").open("a") as file:
            file.write(f"{them[2].index}\n")
        return play(*them)

    evaluating.play_shard = counted
    watch(os.environ["RANK"], out)
    sys.argv = ["mtbench", "train", *arguments]
    cli.main()


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "learn":
        learn(sys.argv[2])
    else:
        command(sys.argv[2], sys.argv[3], sys.argv[4:])
