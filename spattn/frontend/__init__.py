"""From text to patterns, and from patterns to their meaning."""
