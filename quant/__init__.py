"""lognet: train PyTorch networks whose weights are a few bits each, on a ladder in log space."""
