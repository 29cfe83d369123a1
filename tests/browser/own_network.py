"""A network of its own for this process and all that it starts.

When an address of the machine comes or goes, Chromium gives up every request with ERR_NETWORK_CHANGED. Containers
that start beside these tests bring addresses all the time.
"""

import ctypes
import fcntl
import socket
import struct

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


def enter_own_network() -> bool:
    """Leaves the network of the machine for one with a loopback interface alone; False where that is not allowed.

    Only threads that are started later follow, so it is called before there are others.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "unshare") or library.unshare(_CLONE_NEWNET) != 0:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    return True
