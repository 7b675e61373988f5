"""The kernels that attention can run on, one file each, and the choice among them."""
