"""The process that tests start nodes from: what a test sees of one that ends just now."""

import signal
import socket
import struct
import subprocess
import sys

from tests.harness.fork_server import Forked


def test_a_signal_to_a_process_whose_end_is_not_told_yet_does_nothing() -> None:
    """The server reaps a process a moment before it tells who started it."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    server, client = socket.socketpair()
    with server, client:
        server.sendall(struct.pack("!i", ended.pid))
        process = Forked(client, ["serve"])

        process.send_signal(signal.SIGCONT)

        assert process.poll() is None
        server.sendall(struct.pack("!i", -signal.SIGTERM))
        assert process.wait() == -signal.SIGTERM
