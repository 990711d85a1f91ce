"""What an enhancement improved and what it disturbed."""
