"""The flow: path, time laws, objective, solvers, guidance; all that is not the network."""
