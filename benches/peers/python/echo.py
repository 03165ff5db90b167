"""The echo server on asyncio or uvloop: a protocol per connection.

    echo.py asyncio|uvloop [--host ADDRESS] [--port N] [--mode echo] [--defaults] [--stats]

Its first line says where it listens; a signal ends it. uvloop has to be installed beside this interpreter.
"""

import argparse
import asyncio
import contextlib
import socket
import sys


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


async def serve(arguments):
    listener = socket.socket(socket.AF_INET6 if ":" in arguments.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Connections inherit it. BBR, where it is the system's choice, paces by timers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    listener.bind((arguments.host, arguments.port))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, sock=listener, backlog=4096)
    host, port = listener.getsockname()[:2]
    print(f"listening on [{host}]:{port}" if ":" in host else f"listening on {host}:{port}", flush=True)
    await server.serve_forever()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=["asyncio", "uvloop"])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mode", choices=["echo"], default="echo")
    parser.add_argument("--defaults", action="store_true", help="permitted; neither loop has flags for this work")
    parser.add_argument("--stats", action="store_true", help="permitted; this server counts nothing")
    arguments = parser.parse_args()
    if arguments.loop == "uvloop":
        import uvloop

        runner = uvloop.run
    else:
        runner = asyncio.run
    with contextlib.suppress(KeyboardInterrupt):
        runner(serve(arguments))


if __name__ == "__main__":
    sys.exit(main())
