"""Records -> normalized scores: references, aggregates with intervals, tables and figures."""

from mtbench.scoring.scores import Estimate, Scores, score

__all__ = ["Estimate", "Scores", "score"]
