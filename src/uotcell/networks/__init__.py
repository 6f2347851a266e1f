"""Neural networks, as flax.nnx modules."""

from uotcell.networks._icnn import ACTIVATIONS, InputConvexNetwork
from uotcell.networks._mlp import MLP_ACTIVATIONS, ResidualMLP
from uotcell.networks._rescaling import RescalingNetwork
from uotcell.networks._velocity import VelocityNetwork

__all__ = ["ACTIVATIONS", "MLP_ACTIVATIONS", "InputConvexNetwork", "RescalingNetwork", "ResidualMLP", "VelocityNetwork"]
