"""A colatent plugin for signal."""
