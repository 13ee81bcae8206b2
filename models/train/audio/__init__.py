"""Train the small audio model that comes with LatentQ, from nothing, on a CPU."""
