"""Environments in the form that other libraries want. Nothing here is imported unless a user imports it."""
