"""Digits that people speak, as recordings and as captions, and what judges a model of both."""
