"""Finished runs at work: predictions of new images, and pictures of what their networks look at."""
