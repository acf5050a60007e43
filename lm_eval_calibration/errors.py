"""What every room may raise for the command to print in one line."""


class UserError(Exception):
    """Something that the user can mend; the message names the place and the value and says what to do."""
