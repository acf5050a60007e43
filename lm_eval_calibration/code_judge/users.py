"""A user number for each program, which no other program has at the time or had just before."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

FIRST_USER, N_USERS = 60_000, 5000
"""As root, programs run as one of these users: numbers that no account has by default."""

_turn = count(97 * os.getpid())


@contextmanager
def own_user() -> Iterator[int]:
    """Reserve a user on this machine: the limit on processes counts those of a user, and so do others of the kernel's.

    A name of an abstract socket is the reservation: it ends with this process, whatever becomes of it.
    """
    for _ in range(N_USERS):
        user = FIRST_USER + next(_turn) % N_USERS
        with socket.socket(socket.AF_UNIX) as reservation:
            try:
                reservation.bind(f"\0lm-eval-calibration-user-{user}")
            except OSError:
                continue  # another program's
            yield user
            return
    raise OSError(f"all of the {N_USERS} users from {FIRST_USER} on run programs")
