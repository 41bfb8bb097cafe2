"""What the ablation measures, and tables of the ablation and of the training of the demo encoder."""
