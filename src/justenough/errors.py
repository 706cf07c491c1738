"""Everything this package raises on purpose."""


class JustEnoughError(Exception):
    """Base of all deliberate errors."""


class InputError(JustEnoughError, ValueError):
    """The caller's value cannot be used; the message says what was got and what would do."""


class DataReuseError(JustEnoughError, ValueError):
    """The certification cases, or cases of the same groups, were already seen by the search."""
