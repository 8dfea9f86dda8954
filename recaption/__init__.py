"""Captioners, prompts, cleaning and caption rows: from frames to words that can be traced."""
