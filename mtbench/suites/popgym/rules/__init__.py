"""Compiled rules of the 27 POPGym games: one file for each family, and one for all families of cart poles."""
