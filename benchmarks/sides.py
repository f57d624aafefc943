"""Two sides timed in turns in one process, and a table of them."""

import time

import pytest

ROUNDS = 5


class Sides:
    """The comparisons of one module. A side has `play()`, and `steps`: how many that plays."""

    def __init__(self):
        self.rows = []

    def compare(self, benchmark, name, ours, theirs, clock=time.process_time):
        """In turns; the best of each counts."""
        rates = {"ours": [], "theirs": []}

        def timed(side, into):
            began = clock()
            side.play()
            into.append(side.steps / (clock() - began))

        timed(theirs, []), timed(ours, [])

        def before():
            timed(theirs, rates["theirs"])

        benchmark.pedantic(timed, (ours, rates["ours"]), setup=before, rounds=ROUNDS)
        best = {side: max(values) for side, values in rates.items()}
        self.rows.append((name, best["ours"], best["theirs"]))
        benchmark.extra_info["ratio"] = best["ours"] / best["theirs"]

    def show(self, capsys):
        """Print the table, as CSV: results/speed has such files."""
        if not self.rows:
            pytest.skip("nothing was timed")
        with capsys.disabled():
            print("\nsteps a second,ours,upstream,ratio")
            for name, ours, theirs in self.rows:
                print(f'"{name}",{ours:.0f},{theirs:.0f},{ours / theirs:.2f}')
