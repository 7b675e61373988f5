"""Generation: prompt -> prefix -> block after block -> items."""
