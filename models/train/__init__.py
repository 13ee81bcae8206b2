"""Train the models that come with LatentQ, from nothing, on a CPU."""
