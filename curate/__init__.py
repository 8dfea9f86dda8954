"""Footage to shots, scores, decisions and WebDataset shards. Imports no sibling package and no Ray."""
