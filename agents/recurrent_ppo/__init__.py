"""The on-policy baseline: sb3-contrib's recurrent PPO on mtbench's engines, with the inputs of RL^2.

The paper compares its agent on Multi-Task POPGym with PPO and a GRU (Section 4.2, Figure 5). This is that comparison
with the recurrent PPO that most people use; its memory is an LSTM. Where to read first: ``config.py`` (settings),
``inputs.py`` (previous action and reward), ``train.py`` (the loop around SB3's).
"""
