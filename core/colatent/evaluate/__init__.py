"""Metrics, curves and reports of runs."""
