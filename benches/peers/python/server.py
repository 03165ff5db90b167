"""The server on asyncio or uvloop: a protocol per connection.

    server.py asyncio|uvloop [--host ADDRESS] [--port N] [--mode MODE] [--verify] [--defaults] [--stats]

Its first line says where it listens; a signal ends it. uvloop has to be installed beside this interpreter.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import socket
import struct
import sys

BUFFER = 16 * 1024
SMALL = 32
# As in the other servers: both ends know these bytes.
SOURCE = bytes((place % 251 + place // BUFFER * 61) % 256 for place in range(4 * BUFFER))


class Echo(asyncio.Protocol):
    """Sends everything back; a client that does not read is not read from."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)

    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()


class Small(Echo):
    """Answers in small writes."""

    def data_received(self, data):
        write = self.transport.write
        for start in range(0, len(data), SMALL):
            write(data[start : start + SMALL])


class FanOut(Echo):
    """Sends to everybody what anybody sends."""

    everyone = {}

    def connection_made(self, transport):
        super().connection_made(transport)
        self.everyone[self] = transport

    def data_received(self, data):
        for other in self.everyone.values():
            other.write(data)

    def connection_lost(self, error):
        del self.everyone[self]


class Send(asyncio.Protocol):
    """Sends whenever there is room."""

    blocks = [SOURCE[start : start + BUFFER] for start in range(0, len(SOURCE), BUFFER)]

    def connection_made(self, transport):
        self.transport = transport
        self.paused = False
        self.sent = 0
        self.pour()

    def pour(self):
        while not self.paused and not self.transport.is_closing():
            self.transport.write(self.blocks[self.sent % len(self.blocks)])
            self.sent += 1

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False
        self.pour()

    def connection_lost(self, error):
        self.paused = True


class Receive(asyncio.Protocol):
    """Reads, and answers nothing."""


class Verify(asyncio.Protocol):
    """Reads, compares, and answers the end of the stream by what came and how much of it was wrong."""

    def connection_made(self, transport):
        self.transport = transport
        self.received = self.wrong = 0

    def data_received(self, data):
        while data:
            place = self.received % len(SOURCE)
            now, data = data[: len(SOURCE) - place], data[len(SOURCE) - place :]
            expected = SOURCE[place : place + len(now)]
            if now != expected:
                self.wrong += sum(byte != other for byte, other in zip(now, expected))
            self.received += len(now)

    def eof_received(self):
        self.transport.write(struct.pack("<QQ", self.received, self.wrong))


PROTOCOLS = {"echo": Echo, "unix": Echo, "small": Small, "fan-out": FanOut, "send": Send, "receive": Receive}


async def serve(arguments):
    loop = asyncio.get_running_loop()
    protocol = Verify if arguments.verify and arguments.mode == "receive" else PROTOCOLS[arguments.mode]
    if arguments.mode == "unix":
        name = f"ringloop-benches-{os.getpid()}"
        server = await loop.create_unix_server(protocol, f"\0{name}", backlog=4096)
        print(f"listening on @{name}", flush=True)
        return await server.serve_forever()
    listener = socket.socket(socket.AF_INET6 if ":" in arguments.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Connections inherit it. BBR, where it is the system's choice, paces by timers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    listener.bind((arguments.host, arguments.port))
    server = await loop.create_server(protocol, sock=listener, backlog=4096)
    host, port = listener.getsockname()[:2]
    print(f"listening on [{host}]:{port}" if ":" in host else f"listening on {host}:{port}", flush=True)
    await server.serve_forever()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=["asyncio", "uvloop"])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mode", choices=list(PROTOCOLS), default="echo")
    parser.add_argument("--verify", action="store_true", help="compares what comes in, with --mode receive")
    parser.add_argument("--defaults", action="store_true", help="permitted; neither loop has flags for this work")
    parser.add_argument("--stats", action="store_true", help="permitted; this server counts nothing")
    arguments = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # Clients that reset their connections are no news.
    if arguments.loop == "uvloop":
        import uvloop

        runner = uvloop.run
    else:
        runner = asyncio.run
    with contextlib.suppress(KeyboardInterrupt):
        runner(serve(arguments))


if __name__ == "__main__":
    sys.exit(main())
