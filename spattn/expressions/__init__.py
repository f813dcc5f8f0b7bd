"""Integer and Boolean expressions over queries, keys, tiles and lengths."""
