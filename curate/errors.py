"""The one exception for input that a person can mend."""


class BadInput(ValueError):
    """Input or configuration that cannot be used; the message says the cause and the remedy."""
