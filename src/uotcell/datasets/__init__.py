"""Small real datasets that come with the package and need no network."""

from uotcell.datasets._embedded import hematopoiesis, reprogramming

__all__ = ["hematopoiesis", "reprogramming"]
