"""The files for clusters: Ray knows every word of its one, and the job for Slurm starts what it says."""

import os
import subprocess
import time

import pytest
import yaml

from tests.paths import ROOT

CLUSTER = ROOT / "examples" / "cluster"

# What Slurm gives a job on the first of two nodes with four GPUs.
JOB = {"SLURM_JOB_NODELIST": "a[1-2]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_ID": "77"}


@pytest.fixture
def slurm(tmp_path):
    """Runs the job with commands that write down how they are called."""
    stubs = {
        "scontrol": 'if [ "$1" = requeue ]; then echo "requeue $2" >> calls; else printf "a1\\na2\\n"; fi',
        "srun": 'echo "srun $*" >> calls; exec "$@"',
        "torchrun": """
            trap 'echo saved >> calls; exit 1' TERM
            echo torchrun >> calls
            if [ "$ENDS" = never ]; then while :; do sleep 0.05; done; fi
            exit $ENDS
        """,
    }
    for name, text in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)

    def run(*arguments, ends="0"):
        environment = {**os.environ, **JOB, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ENDS": ends}
        job = subprocess.Popen(
            ["bash", str(CLUSTER / "train.sbatch"), *arguments],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        calls = tmp_path / "calls"
        if ends == "never":
            while not calls.exists() or "torchrun\n" not in calls.read_text():
                time.sleep(0.05)
            job.terminate()
        code = job.wait(timeout=60)
        return code, calls.read_text().splitlines() if calls.exists() else []

    return run


def test_the_job_starts_a_torchrun_on_every_node(slurm):
    code, calls = slurm("MTPOPGym-v0", "paper", "runs/paper", "seed=3")
    assert code == 0
    assert calls[0].startswith("srun torchrun --nnodes 2 --nproc-per-node 4 --max-restarts 3")
    assert "--rdzv-endpoint a1:29500" in calls[0]
    assert calls[0].endswith("-m mtbench_agents.transformer MTPOPGym-v0 --preset paper --out runs/paper seed=3")
    assert calls[1:] == ["torchrun"]


def test_the_job_is_queued_again_if_it_was_asked_to_end(slurm):
    """After the ranks have saved; not after an error."""
    assert slurm("MTPOPGym-v0", "paper", "runs/paper", ends="never")[1][-2:] == ["saved", "requeue 77"]


def test_an_error_is_not_queued_again(slurm):
    code, calls = slurm("MTPOPGym-v0", "paper", "runs/paper", ends="1")
    assert (code, calls[-1]) == (1, "torchrun")


def test_a_job_without_arguments_starts_nothing(slurm):
    code, calls = slurm()
    assert code != 0
    assert calls == []


def test_torchrun_and_the_agent_know_the_options():
    """Of the line in the job."""
    run = pytest.importorskip("torch.distributed.run")
    text = (CLUSTER / "train.sbatch").read_text()
    line = text[text.index("srun torchrun") :].split("&\n")[0].replace("\\\n", " ").split()[2:]
    numbers = {'"$SLURM_NNODES"': "2", '"$SLURM_GPUS_ON_NODE"': "4"}
    parsed = run.get_args_parser().parse_args([numbers.get(word, word) for word in line])
    assert (parsed.nnodes, parsed.nproc_per_node, parsed.max_restarts) == ("2", "4", 3)
    assert parsed.module
    assert parsed.training_script == "mtbench_agents.transformer"


def test_ray_knows_its_file():
    util = pytest.importorskip("ray.autoscaler._private.util")
    content = yaml.safe_load((CLUSTER / "evaluate.yaml").read_text())
    prepared = util.prepare_config(content)
    util.validate_config(prepared)
    assert len(content["provider"]["worker_ips"]) == content["max_workers"]
