"""Neural networks, as flax.nnx modules."""

from uotcell.networks._icnn import ACTIVATIONS, InputConvexNetwork
from uotcell.networks._mlp import MLP_ACTIVATIONS, ResidualMLP

__all__ = ["ACTIVATIONS", "MLP_ACTIVATIONS", "InputConvexNetwork", "ResidualMLP"]
