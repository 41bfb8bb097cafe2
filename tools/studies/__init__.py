"""What the larger programs of tools/ are made of: ablation, stages of the benchmark, training of the demo encoder."""
