"""Unpacks the Milvus server of a wheel once, and writes the configuration of one server.

usage: prepare.py PACKAGES BINARIES RUN

PACKAGES  folder that pip has installed milvus==2.3.5 into
BINARIES  folder for the unpacked server, filled once
RUN       folder of this server: its configuration, data and logs
"""

import fcntl
import os
import socket
import struct
import sys

VERSION = "2.3.5"
COMPONENTS = ["rootCoord", "proxy", "queryCoord", "queryNode", "indexCoord", "indexNode", "dataCoord", "dataNode"]


def bring_loopback_up():
    """In a network of its own a process has only this interface, and that is down."""
    siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(s, siocgifflags, request))[1]
        if not flags & iff_up:
            fcntl.ioctl(s, siocsifflags, struct.pack("16sH14x", b"lo", flags | iff_up))


def main():
    packages, binaries, run = sys.argv[1:]
    sys.path.insert(0, packages)
    import milvus

    assert milvus.__version__ == VERSION, milvus.__version__
    bring_loopback_up()
    # Writes BINARIES/bin; what is there already, by its hash, stays.
    milvus._initialize_data_files(binaries)
    server = milvus.MilvusServer()
    server.set_base_dir(run)
    for component in COMPONENTS:
        server.config.set(component + ".ip", "127.0.0.1")
    # A server that was killed is started anew only when its lease has ended: 30 s otherwise.
    server.config.set("common.session.ttl", 3)
    server.config.resolve()
    ports = [server.config.resolve_port(9091)[0], server.listen_port]
    print(*ports)


if __name__ == "__main__":
    main()
