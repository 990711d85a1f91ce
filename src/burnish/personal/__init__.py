"""One person's taste: coefficients over named directions, learned from choices, kept apart from everyone else's."""
