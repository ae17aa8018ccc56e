"""What the recipes share: the papers' figures, readers of data sets, one training loop."""
