"""Write the `oracle` entries of a suite's reference scores from a committed oracle run.

python results/update_references.py results/MTPOPGym-v0/oracle
"""

import json
import sys
from pathlib import Path

from mtbench.records import read_run, write_json

run = read_run(sys.argv[1])
path = Path(__file__).parent.parent / "mtbench" / "scoring" / "data" / f"{run.manifest['suite']}.json"
data = json.loads(path.read_text())
last = run.episodes[run.episodes["attempt"] == run.manifest["k"]]
for task, returns in last.groupby("task")["return"]:
    data["tasks"][task]["oracle"] = {
        "mean": round(float(returns.mean()), 4),
        "sem": round(float(returns.sem()), 4),
        "episodes": len(returns),
    }
write_json(path, data)
