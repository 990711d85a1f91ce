"""One person's taste: coefficients over named directions, learned from choices and writing, kept apart from everyone
else's."""
