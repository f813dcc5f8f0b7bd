"""Configs: what a model's layers attend, as data of the files in which models are configured."""

from spattn.config.schema import AttentionConfig

__all__ = ["AttentionConfig"]
