"""The reference agent: a Transformer actor-critic whose losses do not depend on the scale of returns.

Grigsby et al., "AMAGO-2", NeurIPS 2024, Section 3 and Appendix A. Where to read first:

1. ``config.py``: every setting on one line, and the presets.
2. ``encoders``, ``backbone.py``, ``heads.py``, ``model.py``: from timesteps to policies and values.
3. ``objectives.py``: the losses, as small pure functions.
4. ``learner.py``: one update.
5. ``replay.py``, ``collector.py``: whole rollouts in, slices out; environments to rollouts. ``collecting.py``: beside
   the learner; ``remote_collectors.py``: on a Ray cluster.
6. ``train.py``: the loop. How it survives a kill is in :mod:`mtbench_agents.training`.

Shape suffixes used throughout: B batch (or environments), T timesteps, D model width, G discounts, E critics in the
ensemble, K bins, A actions (or action dimensions), S sampled actions.
"""
