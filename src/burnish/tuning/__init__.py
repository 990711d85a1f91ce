"""Choosing the gains: the most effect within a budget of damage."""
