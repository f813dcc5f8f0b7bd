"""Generated text and measured tiles as files that outlive the process."""
