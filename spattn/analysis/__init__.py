"""What can be said about a pattern: explanations, warnings, pictures, the ladder from the oracle to the kernels."""
