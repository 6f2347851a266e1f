"""Models on disk: a dict of settings and numpy arrays in one directory, for maps and problems alike."""

from uotcell._disk._directory import read_format, read_model, write_model
from uotcell._disk._migrations import SCHEMA
from uotcell._disk._values import Decoder, Encoder, Kind

__all__ = ["SCHEMA", "Decoder", "Encoder", "Kind", "read_format", "read_model", "write_model"]
