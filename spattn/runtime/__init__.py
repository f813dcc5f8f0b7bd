"""What happens between a call and a kernel: arguments, the cache, gradients, custom operators."""
