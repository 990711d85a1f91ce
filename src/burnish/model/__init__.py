"""The only part that knows transformers: loading, capture, live edits, generation."""
