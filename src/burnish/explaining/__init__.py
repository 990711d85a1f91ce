"""What a direction is and what an edit does: facts, then charts, then one page that opens without network."""
