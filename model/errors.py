"""The one exception of model/ and train/ for what a person can mend."""


class BadInput(ValueError):
    """A file, shape or configuration that cannot be used; the message says the cause and the remedy."""
