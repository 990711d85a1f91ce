"""An OpenAI-compatible server of one model with many enhancements, and its page."""
