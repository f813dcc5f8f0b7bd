"""Functions that generated kernels call, a module a language; imported by these kernels alone."""
