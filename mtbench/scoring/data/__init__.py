"""Normalization constants with their sources, one JSON file per suite."""
