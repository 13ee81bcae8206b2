"""Measures how right the results are: against exact solutions, stock diffusers, prompts."""
