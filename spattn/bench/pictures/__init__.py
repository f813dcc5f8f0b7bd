"""Results as PNG; matplotlib is imported when one is drawn."""
