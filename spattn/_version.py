"""The version, read by the build and written into the header of generated code."""

__version__ = "0.1.0"
