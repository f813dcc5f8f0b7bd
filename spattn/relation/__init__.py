"""Exact sets of pairs: the one door to islpy (integer sets) and to SymPy (formulas)."""
