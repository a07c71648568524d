"""The one exception that a user is meant to read."""


class UserError(Exception):
    """What went wrong, where (file, line or id, key) and what to do about it, in one line."""
