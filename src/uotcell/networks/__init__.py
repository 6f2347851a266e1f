"""Neural networks, as flax.nnx modules."""

from uotcell.networks._icnn import ACTIVATIONS, InputConvexNetwork

__all__ = ["ACTIVATIONS", "InputConvexNetwork"]
