"""What every room may raise for the command to print in one line."""


class UserError(Exception):
    """Something that the user can mend; the message names the place and the value and says what to do."""


class TaskError(UserError, ValueError):
    """A task, its data or its options can't be used; the message says which and what to do."""
