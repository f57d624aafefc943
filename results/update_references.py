"""Write a suite's reference scores from committed runs: each agent's mean return becomes the entry of its name.

python results/update_references.py results/MTPOPGym-v0/oracle
python results/update_references.py results/MTBabyAI-v0/*/*
"""

import json
import sys
from pathlib import Path

from mtbench.records import read_run, write_json

for folder in sys.argv[1:]:
    run = read_run(folder)
    path = Path(__file__).parent.parent / "mtbench" / "scoring" / "data" / f"{run.manifest['suite']}.json"
    data = json.loads(path.read_text())
    last_counts = run.manifest["objective"] == "k-shot"
    scored = run.episodes[run.episodes["attempt"] == run.manifest["k"]] if last_counts else run.episodes
    for task, returns in scored.groupby("task")["return"]:
        data["tasks"].setdefault(task, {})[run.manifest["agent"]] = {
            "mean": round(float(returns.mean()), 4),
            "sem": round(float(returns.sem()), 4),
            "episodes": len(returns),
        }
    write_json(path, data)
