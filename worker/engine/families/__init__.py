"""Pipeline families, one a file: encode, latents, predict, decode."""
