"""Records -> normalized scores: references, aggregates with intervals, tables and figures."""

from mtbench.scoring.intervals import Estimate
from mtbench.scoring.scores import Scores, score

__all__ = ["Estimate", "Scores", "score"]
