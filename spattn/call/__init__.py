"""A call as backends are given it: its sizes, its tensors, what was made ready of them, its derivatives."""
