"""Samples in an order that is a function of (seed, epoch), from several sources mixed by weight."""
