"""The 27 POPGym games, batched: one file for each family's rules, and the engine that plays them side by side."""
