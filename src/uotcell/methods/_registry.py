"""Methods by name, ours and those of users."""

from __future__ import annotations

from uotcell.methods._base import Method
from uotcell.methods._flow_matching import FlowMatching
from uotcell.methods._genot import GENOT
from uotcell.methods._icnn import ICNN
from uotcell.methods._monge_gap import MongeGap

METHODS: dict[str, type[Method]] = {cls.name: cls for cls in (ICNN, MongeGap, FlowMatching, GENOT)}


def register(method: type[Method]) -> type[Method]:
    """Make a method known by its name, as a decorator: in calls, in benchmarks and when a saved map is loaded.

    Parameters
    ----------
    method
        Frozen dataclass that derives from :class:`~uotcell.methods.Method`, with a ``name`` no other method has.
        Registering the same class again, as a notebook cell does that runs twice, replaces it.

    Returns
    -------
    The class itself.

    Raises
    ------
    TypeError
        If it is no such class, or one of its functions is missing.
    ValueError
        If another class has its name, or ``samples`` is neither "marginals" nor "pairs".

    Examples
    --------
    >>> import dataclasses, uotcell as uc
    >>> @uc.methods.register
    ... @dataclasses.dataclass(frozen=True)
    ... class Wider(uc.methods.ICNN):
    ...     name = "wider_icnn"
    ...     hidden: tuple[int, ...] = (256, 256)
    >>> uc.methods.resolve_method("wider_icnn").hidden
    (256, 256)
    """
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise TypeError(f"Expected a class that derives from `Method`, found {method!r}.")
    if getattr(method, "__abstractmethods__", None):
        raise TypeError(
            f"Expected {method.__name__} to define {sorted(method.__abstractmethods__)}, found them missing."
        )
    params = getattr(method, "__dataclass_params__", None)
    if params is None or not params.frozen or "__dataclass_params__" not in vars(method):
        raise TypeError(
            f"Expected {method.__name__} to be a frozen dataclass, as compiled programs are keyed by it. Decorate it "
            "with `@dataclass(frozen=True, kw_only=True)` below `@register`."
        )
    for name in ("name", "samples"):
        if not hasattr(method, name):
            raise TypeError(f"Expected {method.__name__} to have a class attribute `{name}`, found none.")
    # A property says it per instance, as that of flow matching does.
    if isinstance(method.samples, str) and method.samples not in ("marginals", "pairs"):
        raise ValueError(f"Expected `samples` to be 'marginals' or 'pairs', found {method.samples!r}.")
    if other_of_this_name(method):
        raise ValueError(
            f"Expected a `name` that no other method has, found {method.name!r} of {METHODS[method.name].__qualname__}."
        )
    METHODS[method.name] = method
    return method


def other_of_this_name(method: type[Method]) -> bool:
    """Whether the name of a class is registered for another one; a class that was defined again is the same."""
    known = METHODS.get(method.name, method)
    return (known.__module__, known.__qualname__) != (method.__module__, method.__qualname__)


def resolve_method(method: str | Method) -> Method:
    """Turn a method name into its defaults; pass a method through.

    Parameters
    ----------
    method
        Name of a method, ours or registered, or a method.

    Returns
    -------
    The method.

    Raises
    ------
    ValueError
        If no method has this name.

    Examples
    --------
    >>> import uotcell as uc
    >>> uc.methods.resolve_method("flow_matching") == uc.methods.FlowMatching()
    True
    """
    if isinstance(method, Method):
        return method
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"Expected `method` to be one of {sorted(METHODS)} or a `Method`, found {method!r}.")
    return METHODS[method]()
