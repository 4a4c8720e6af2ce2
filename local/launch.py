"""Runs a program that ends when its parent ends: `launch.py PARENT_PID SIGNAL USER PROGRAM ARGUMENT...`.

USER `-` changes nothing. A script of its own, not a `preexec_fn`: that is not safe in a parent with threads.
The kernel ties the signal to the thread that started the program: start programs from a thread that stays.
"""

import ctypes
import os
import pwd
import sys

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION = 0x20080522


def become(libc: ctypes.CDLL, name: str) -> None:
    """Drop root for `name`, keeping the right to open files where only root may: a clone often lies in root's home."""
    user = pwd.getpwnam(name)
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    kept = 1 << CAP_DAC_OVERRIDE
    libc.capset(header, (ctypes.c_uint32 * 6)(kept, kept, kept, 0, 0, 0))
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)


def main() -> None:
    parent, signal, user, *command = sys.argv[1:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if user != "-":
            become(libc, user)
        libc.prctl(PR_SET_PDEATHSIG, int(signal), 0, 0, 0)  # after the change of user, which clears it
        if os.getppid() != int(parent):
            sys.exit("launch: the parent is gone already")
    os.execvp(command[0], command)  # noqa: S606 - becoming the program is the point


if __name__ == "__main__":
    main()
