"""Directions and LoRA together: what a direction cannot bring (new knowledge, a skill) by a short fine-tune that keeps or protects it."""
