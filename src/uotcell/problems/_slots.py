"""Write results into AnnData together or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from anndata import AnnData

# Values by name, by the attribute of AnnData that holds them: "obs", "obsm", "obsp" or "uns". None removes a name.
Slots = Mapping[str, Mapping[str, object]]


def write_slots(*targets: tuple[AnnData, Slots]) -> None:
    """Write slots of one or several AnnData.

    An exception on the way, an interruption of the user too, puts everything back as it was. A view becomes a copy of
    its own, of which anndata warns; of a backed file only what is in memory changes.

    Parameters
    ----------
    targets
        Pairs of annotated data and what is written into it.
    """
    with slots_written(*targets):
        pass


@contextmanager
def slots_written(*targets: tuple[AnnData, Slots]) -> Iterator[None]:
    """Write slots, see :func:`write_slots`, that stay only if the block ends without an exception."""
    before = [(adata, _present(adata, slots)) for adata, slots in targets]
    try:
        _set_all(targets)
        yield
    except BaseException:
        _set_all(before)
        raise


def _present(adata: AnnData, slots: Slots) -> Slots:
    """Return what stands under these names, None where nothing does."""
    return {slot: {name: getattr(adata, slot).get(name) for name in names} for slot, names in slots.items()}


def _set_all(targets) -> None:
    for adata, slots in targets:
        for slot, values in slots.items():
            for name, value in values.items():
                _set(adata, slot, name, value)


def _set(adata: AnnData, slot: str, name: str, value: object) -> None:
    # Asked for anew every time: the first change of a view replaces all of its attributes.
    holder = getattr(adata, slot)
    if value is not None:
        holder[name] = value
    elif name in holder:
        del holder[name]
