"""Characters as their Unicode names and as pictures, and what judges a model of both."""
