"""For plugin authors: checks that a codec keeps to the contract."""
