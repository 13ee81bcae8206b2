"""Measures how well pictures show what their prompts ask for."""
