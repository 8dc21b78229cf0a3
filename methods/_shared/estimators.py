"""What methods share that put an estimator in the place of the network's classifier."""

from __future__ import annotations

LOWEST = -100.0
"""The score of a class without training images: as a log-probability, less than any other class ever gets."""
