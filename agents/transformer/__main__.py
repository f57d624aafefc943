"""``python -m mtbench_agents.transformer ...`` is ``mtbench train ...``, in the form that ``torchrun -m`` takes."""

import sys

from mtbench.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
