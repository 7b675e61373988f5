"""Digits as words, as scans and as telephone tones, and what judges a model of all three."""
