"""Those who compute a workload: spattn, its rivals, and libraries that serve some patterns only."""
