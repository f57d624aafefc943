"""Agents for mtbench: a random policy, scripted oracles, and (later) learning agents.

The folder is ``agents/``; the import name is ``mtbench_agents``. Imports inside are relative, so both work.
"""
