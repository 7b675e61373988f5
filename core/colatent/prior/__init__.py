"""The prior: a block-causal diffusion transformer that gives the velocity of noisy blocks."""
