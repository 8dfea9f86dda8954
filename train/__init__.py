"""Training of the networks: loops, losses, data, checkpoints. Needs torch, model/ and the shard contract."""
