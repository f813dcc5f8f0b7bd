"""What is computed: patterns said twice, in the language and as mask functions, with shapes and tensors."""
