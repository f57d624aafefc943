"""Agents for mtbench: a random policy, the suites' scripted oracles as one policy, and the reference Transformer agent.

The folder is ``agents/``; the import name is ``mtbench_agents``. Imports inside are relative, so both work.
"""
