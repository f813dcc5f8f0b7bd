"""The block-layout IR: passes, walks, index maps and ranges, planned once a pattern for every length."""
