"""A frozen encoder for colatent: vectors through scikit-learn's PCA."""
