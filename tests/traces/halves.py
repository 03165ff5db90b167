#!/usr/bin/env python3
"""Random scripts of both halves of a stream over a socket, and what CPython logs of them.

usage: halves.py FIRST_SEED COUNT FILE    records COUNT scripts

Tasks read, drain and wait for the close, and are cancelled; the main task writes, ends and closes; the peer sends, reads, ends,
goes and resets. Left out is what ringloop does otherwise on purpose: a wait_closed() that is cancelled (CPython cancels the one
future of all who wait), a read to the end that is cancelled or fails (what is there is thrown away), at_eof() while a read to the
end is about to return (its bytes count as taken in CPython), a read that fails at the end while the transport is paused (CPython
leaves it paused), and an error that comes when a read was woken already; and an AF_UNIX connection that is closed with unread
bytes in the kernel, where ringloop may have read them ahead. What kernels decide is kept out as in scripts.py. What the peer sends
while reading is paused is read ahead by ringloop, and comes as a piece of its own; so nothing more is sent before it was
received. A script is recorded twice, and kept if both are equal.
"""
import asyncio, json, logging, random, socket, struct, sys
from scripts import kind, mend, pair, pattern, settle
from asyncio import selector_events

SEPARATORS = ['\n', '#', '##', '\r\n', 'ab', 'aab', '#\n#']
RESET = 'ConnectionResetError[ECONNRESET]'
READS = ('read', 'exactly', 'until', 'line', 'all')


def shown(data):
    import zlib
    return repr(bytes(data)) if len(data) <= 24 else f'<{len(data)} bytes, {zlib.adler32(data)}>'


def failed(error):
    if isinstance(error, asyncio.LimitOverrunError): return f'LimitOverrunError consumed={error.consumed} {error}'
    if isinstance(error, asyncio.IncompleteReadError): return f'IncompleteReadError partial={shown(error.partial)} expected={error.expected} {error}'
    if isinstance(error, OSError): return kind(error) if error.errno else str(error)
    return f'{type(error).__name__}: {error}'


def make(seed):
    r = random.Random(seed)
    family = r.choice(['unix', 'unix', 'tcp'])
    limit = r.choice([1, 3, 8, 20, 64, 1000, 65536])
    gentle, quiet = r.random() < .75, r.random() < .3  # Few ends; few reads.
    large_ones = [400000] if family == 'unix' else [1000000]
    large, left = large_ones, 15000
    steps = [['turn', 2]]
    def text(): return ''.join(r.choice('aaaab#\r\n') for _ in range(r.choice([1, 1, 2, 3, 5, 8, 13, 30])))
    def ours():
        sizes = [0, 1, 10, 1000, *large, *large]
        return r.choice([
            lambda: ['write', r.choice(sizes)], lambda: ['write', r.choice(sizes)], lambda: ['write', r.choice(sizes)],
            lambda: ['writelines', [r.choice([0, 1, 500, *(size // 2 for size in large)]) for _ in range(r.randrange(4))]],
            lambda: ['eof'], lambda: ['close'], lambda: ['abort'], lambda: ['state'], lambda: ['state'],
            lambda: ['limits', *r.choice([[None, None], [0, None], [100, None], [None, 0], [1000, 2000], [90000, 80000]])],
            lambda: ['drain'], lambda: ['drain'], lambda: ['drain'], lambda: ['closed'], lambda: ['cancel', r.randrange(4)],
            lambda: ['read', r.choice([0, 1, 2, 7, 100, 3000])], lambda: ['exactly', r.choice([0, 1, 5, 30, 2000])],
            lambda: ['until', r.sample(SEPARATORS, r.choice([1, 1, 2]))], lambda: ['line'], lambda: ['line'], lambda: ['all'],
        ])()
    for _ in range(r.randrange(5, 26)):
        if r.random() < .65:
            step = ours()
            if gentle and step[0] in ('close', 'abort', 'eof') and r.random() < .75: continue
            if quiet and step[0] in READS: step = ['drain']
            written = step[1] if step[0] == 'write' else sum(step[1]) if step[0] == 'writelines' else 0
            if written >= 200000: large = []
            steps.append(step)
            if r.random() < .55: steps.append(['turn', r.randrange(1, 4)])
        else:
            step = r.choice([['psend'], ['psend'], ['psend'], ['psend'], ['pall'], ['pall'], ['pshut'], ['pclose'], ['preset']])
            if family == 'unix' and step[0] == 'preset': continue
            if gentle and step[0] in ('pshut', 'pclose', 'preset') and r.random() < .7: continue
            if step == ['psend']:
                step = ['psend', text(), r.choice([1, 1, 1, 60])]
                left -= len(step[1]) * step[2]
                if left < 0: continue
            if step[0] == 'pall': large = large_ones
            steps += [['turn', 2], step, ['settle']]
    gone = min([steps.index([name]) for name in ('pclose', 'preset') if [name] in steps], default=len(steps))
    # A send to a peer that is gone fails at once, or with the next enter: then the loss shows later.
    return {'family': family, 'limit': limit, 'batched': 'write' not in json.dumps(steps[gone:]), 'steps': steps}


class Player:
    def __init__(self, script):
        self.script, self.lines, self.tasks, self.kinds, self.differs = script, [], [], [], False
        self.written, self.got, self.end, self.reading, self.parked = 0, bytearray(), None, None, False

    def log(self, event, lane='main'): self.lines.append(f'{lane}: {event}')
    def active(self): return [not task.done() for task in self.tasks]
    def next(self, size): self.written += size; return pattern(self.written - size, size)

    async def run(self, name, what, argument):
        r, w = self.r, self.w
        try:
            if what == 'drain': await w.drain(); event = 'drained'
            elif what == 'closed': await w.wait_closed(); event = 'closed'
            elif what == 'read': event = shown(await r.read(argument))
            elif what == 'exactly': event = shown(await r.readexactly(argument))
            elif what == 'until': event = shown(await r.readuntil(tuple(s.encode() for s in argument)))
            elif what == 'line': event = shown(await r.readline())
            else: event = shown(await r.read(-1))
        except asyncio.CancelledError: event = 'cancelled'
        except Exception as e:
            if isinstance(e, asyncio.IncompleteReadError) and not self.tr.is_reading(): self.differs = True
            if what == 'all': self.differs = True
            event = failed(e)
        self.log(event, name)

    def set_exception(self, error):
        woken = self.reading and not self.reading.done() and self.r._waiter is None
        if woken or self.reads_to_end(): self.differs = True
        asyncio.StreamReader.set_exception(self.r, error)

    def feed_data(self, data):
        self.parked = False
        asyncio.StreamReader.feed_data(self.r, data)

    def reads_to_end(self):
        return self.reading and not self.reading.done() and self.kinds[self.tasks.index(self.reading)] == 'all'

    def take(self, step):
        name, args, tr = step[0], step[1:], self.tr
        try:
            if name == 'write': self.w.write(self.next(args[0]))
            elif name == 'writelines': self.w.writelines([self.next(size) for size in args[0] if size])
            elif name == 'eof':
                try: self.w.write_eof()
                except OSError: pass  # The peer is gone (WRITE-32).
            elif name == 'close': self.w.close()
            elif name == 'abort': tr.abort()
            elif name == 'limits': tr.set_write_buffer_limits(*args)
            elif name == 'state':
                if self.r.at_eof() and self.reads_to_end(): self.differs = True
                self.log(f'at_eof={self.r.at_eof()} closing={self.w.is_closing()} reading={tr.is_reading()} buffered={tr.get_write_buffer_size() > 0} exception={self.r.exception() is not None}')
            elif name == 'cancel':
                if not self.tasks: return
                index = max(0, len(self.tasks) - 1 - args[0])
                if self.active()[index] and self.kinds[index] in ('closed', 'all'): self.differs = True
                self.log(f'cancel={self.tasks[index].cancel()}')
            elif name == 'psend':
                data = args[0].encode() * args[1]
                paused = not tr.is_reading() and not tr.is_closing()
                if self.parked: self.differs = True
                self.parked = paused
                try: self.peer.send(data)
                except OSError as e: self.log(kind(e), 'peer')
            elif name == 'pshut':
                try: self.peer.shutdown(socket.SHUT_WR)
                except OSError as e: self.log(kind(e), 'peer')
            elif name == 'pclose': self.peer.close()
            elif name == 'preset': self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); self.peer.close()
            else:
                if name in READS and self.reading and not self.reading.done(): return
                task = asyncio.create_task(self.run(f't{len(self.tasks)}', name, args[0] if args else None))
                self.tasks.append(task); self.kinds.append(name)
                if name in READS: self.reading = task
        except (RuntimeError, ValueError) as e: self.log(f'{kind(e)}: {e}')

    def drain(self):
        while self.peer.fileno() >= 0 and not self.end:
            try: data = self.peer.recv(1 << 16)
            except BlockingIOError as e: return kind(e)
            except OSError as e: self.end = kind(e)
            else:
                if not data: self.end = 'EOF'
                self.got += data
        return self.end if self.peer.fileno() >= 0 else 'closed'

    async def play(self):
        script = self.script
        a, self.peer = pair(script['family'])
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self.log(f'{context["message"].split(" <")[0]} {kind(context.get("exception"))}', 'exc'))
        self.r, self.w = await asyncio.open_connection(sock=a, limit=script['limit'])
        self.tr = self.w.transport
        self.r.set_exception, self.r.feed_data = self.set_exception, self.feed_data
        for step in script['steps']:
            if step[0] == 'turn':
                for _ in range(step[1]): await asyncio.sleep(0)
            elif step[0] == 'settle': await settle()
            elif step[0][0] == 'p' and self.peer.fileno() < 0: pass
            elif step[0] == 'pall':
                while self.tr.get_write_buffer_size() and self.drain() == 'BlockingIOError[EAGAIN]': await settle()
                end = self.drain()
                if script['family'] == 'unix': self.log(f'drained {end}', 'peer')
                await settle()
            else: self.take(step)
        await settle()
        self.take(['state'])
        self.log(f'active={[f"t{i}" for i, active in enumerate(self.active()) if active]}')
        for task, what in zip(self.tasks, self.kinds):
            if what not in ('closed', 'all'): task.cancel()
        for _ in range(4): await asyncio.sleep(0)
        self.w.close()
        for _ in range(3000):
            if self.tr._sock is None: break
            self.drain(); await settle()
        assert self.tr._sock is None, script
        await settle()
        end = self.drain()
        if not self.r.exception(): self.log(f'left={shown(await self.r.read(-1))}')
        # Closed with bytes that it has not read, AF_UNIX tells the peer of a reset; what a reset of TCP destroys differs.
        if end == RESET and script['family'] == 'unix': self.differs = True
        all = '-' if end == RESET else len(self.got) == self.written
        self.log(f'got all={all} end={end} equal={self.got == pattern(0, len(self.got))}', 'peer')
        self.peer.close()


def record(script):
    player = Player(script)
    asyncio.run(player.play())
    return None if player.differs else player.lines


def main():
    mend(selector_events._SelectorSocketTransport)
    logging.getLogger('asyncio').propagate = False
    logging.getLogger('asyncio').addHandler(logging.NullHandler())
    first, count, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    scripts, seed = [], first
    while len(scripts) < count:
        script = make(seed)
        lines = record(script)
        if lines is not None and lines == record(script): scripts.append({'seed': seed, **script, 'trace': lines})
        seed += 1
    with open(path, 'w') as out: out.write('[\n' + ',\n'.join(json.dumps(script) for script in scripts) + '\n]\n')
    print(f'{len(scripts)} scripts, the last of seed {scripts[-1]["seed"]}')


if __name__ == '__main__': main()
