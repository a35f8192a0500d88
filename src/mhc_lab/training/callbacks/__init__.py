"""What a run measures and writes while it trains, one file each."""
