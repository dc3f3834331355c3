"""The one error of the offline side that its user can mend."""


class InputError(ValueError):
    """A file, field or option is not as expected; the message names it and what was expected."""
