"""Those who compute decode steps: spattn, and libraries and functions that read some caches and serve some patterns."""
