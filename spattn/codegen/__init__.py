"""Layout -> text: the Jinja environment, the printer of expressions, the parts of a kernel."""
