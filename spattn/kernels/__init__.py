"""Functions that generated kernels call, a module a language; and the kernel that appends to caches."""
