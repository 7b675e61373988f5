"""Latents without a modality: randomness, sequences of blocks, and their packing into one flat batch."""
