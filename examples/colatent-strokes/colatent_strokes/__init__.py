"""Pen drawings for colatent."""
