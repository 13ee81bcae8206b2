"""`make demo`: the whole system at work, from nothing to a page of pictures."""
