"""The commands: thin and readable, one file per front door. Run them as `reelmill NAME`."""
