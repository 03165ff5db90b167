#!/usr/bin/env python3
"""Random scripts of steps on one connection, and what CPython logs of them.

usage: scripts.py FIRST_SEED COUNT FILE    records COUNT scripts
       scripts.py --flow [--unix] FIRST_SEED COUNT FILE
                                           those that fill buffers of many sizes, to be replayed on the same machine
       scripts.py --show FILE INDEX        prints one

A script has steps that the main task takes, and steps that callbacks take when they are called. What kernels, or read-ahead
and batched sends, may decide differently is kept out: steps of the peer stand between turns, how much the kernel takes at once
is not told, and no more than one large write waits. The scripts of --flow tell how much AF_UNIX takes, which a kernel of
another version may decide differently; on TCP, now and then it does so from run to run.
"""
import asyncio, errno, json, logging, random, socket, struct, sys


def kind(error):
    if error is None: return 'None'
    if isinstance(error, OSError) and error.errno: return f'{type(error).__name__}[{errno.errorcode[error.errno]}]'
    return type(error).__name__


def pattern(start, length):
    start &= 65535
    while len(PATTERN) < start + length: PATTERN.extend(PATTERN[:65536])
    return bytes(memoryview(PATTERN)[start:start + length])


PATTERN = bytearray((i * 7 + (i >> 8) * 13) & 255 for i in range(65536))


def step_of_ours(r, large):
    """One that a callback may take too; `large` writes do not fit into the kernel."""
    sizes = [0, 1, 10, 1000, 1000, 20000, *large]
    return r.choice([
        lambda: ['write', r.choice(sizes)], lambda: ['write', r.choice(sizes)],
        lambda: ['writelines', [r.choice([0, 1, 500, *(size // 2 for size in large)]) for _ in range(r.randrange(4))]],
        lambda: ['eof'], lambda: ['pause'], lambda: ['resume'], lambda: ['resume'], lambda: ['close'], lambda: ['abort'],
        lambda: ['limits', *r.choice([[None, None], [0, None], [100, None], [100000, 50000], [None, 0], [1000, 2000], [1 << 20, 0]])],
        lambda: ['state'], lambda: ['state'],
    ])()


def make(seed):
    r = random.Random(seed)
    family = r.choice(['unix', 'tcp'])
    # How much TCP takes, and when, is nothing to rely on.
    large_ones = [300000] if family == 'unix' else []
    steps, left, large = [], 15000, large_ones
    gentle = r.random() < .6  # Few ends, so that more happens before.
    def ends(step): return gentle and step[0] in ('close', 'abort', 'eof', 'pshut', 'pclose') and r.random() < .75
    for _ in range(r.randrange(3, 16)):
        if r.random() < .5:
            step = step_of_ours(r, large)
            if ends(step): continue
            if step[0] == 'write' and step[1] >= 300000 or step[0] == 'writelines' and sum(step[1]) >= 100000: large = []
            steps.append(step)
            if step[0] == 'resume' or r.random() < .5: steps.append(['turn', r.randrange(1, 4)])
        else:
            step = r.choice([['psend'], ['psend'], ['psend'], ['pdrain'], ['pdrain'], ['pshut'], ['pclose']])
            if ends(step): continue
            if step == ['psend']:
                size = min(left, r.choice([1, 10, 100, 3000])); left -= size
                if not size: continue
                step = ['psend', size]
            if step[0] == 'pdrain': large = large_ones; steps.append(['settle'])
            steps.append(['turn', 2]); steps.append(step); steps.append(r.choice([['settle'], ['turn', 3], ['turn', 4]]))
            if step[0] == 'pdrain': steps.append(['settle'])
    hooks = {}
    for name in ('made', 'data', 'eof', 'pause', 'resume', 'lost'):
        if r.random() < .3:
            lists = [[step_of_ours(r, large_ones if name == 'resume' else []) for _ in range(r.randrange(1, 3))] for _ in range(r.randrange(1, 3))]
            # After a flush CPython has not counted the loss yet: writing and aborting do what they should not.
            hooks[name] = [[step for step in list if not ends(step) and not (name == 'lost' and step[0] in ('write', 'writelines', 'abort'))] for list in lists]
    early = r.choice([0, 0, 5])
    # A send to a peer that is gone fails at once, or with the next enter: then closing shows later.
    gone = steps.index(['pclose']) if ['pclose'] in steps else len(steps)
    late = json.dumps([steps[gone:], gone < len(steps) and hooks])
    return {'family': family, 'batched': 'write' not in late, 'keep_open': r.random() < .4, 'early': early, 'steps': [['turn', 3], *steps], 'hooks': hooks}


def step_of_flow(r, sizes, in_lost=False):
    """One that a callback may take too."""
    return r.choice([
        lambda: ['write', r.choice(sizes)], lambda: ['write', r.choice(sizes)], lambda: ['write', r.choice(sizes)],
        lambda: ['writelines', [r.choice([0, 1, *sizes]) for _ in range(r.randrange(4))]], lambda: ['many', r.choice([3, 500]), r.choice([1, 70])],
        lambda: ['eof'], lambda: ['pause'], lambda: ['resume'], lambda: ['close'], lambda: ['abort'],
        lambda: ['limits', *r.choice([[None, None], [0, None], [0, 0], [100, None], [100000, 50000], [None, 0], [1000, 2000], [1 << 20, 0], [300000, 299999], [None, 200000]])],
        lambda: ['state'], lambda: ['size'], lambda: ['size'], lambda: ['mode', r.random() < .5], lambda: ['sndbuf', r.choice([10000 if max(sizes) > 200000 else 2304, 20000, 200000])],
    ])()


def make_flow(seed):
    r = random.Random(seed)
    family = r.choice(['unix', 'unix', 'tcp'])
    sndbuf = r.choice([None, None, 2304, 10000, 100000, 400000])
    sizes = r.choice([[1, 100, 5000], [1, 30000, 65536, 65537], [50000, 100000, 200000], [300000, 1 << 20], [1, 1000, 20000, 70000, 150000, 500000]])
    if family == 'tcp': sndbuf = r.choice([None, 4000000]); sizes = r.choice([[1, 100, 5000], [1, 30000, 65536, 65537], [100000, 150000], [3000000 * 4]])
    if max(sizes) > 200000 and sndbuf == 2304: sndbuf = 10000
    gentle, tight = r.random() < .7, family == 'unix' and r.random() < .5  # Nothing is waited for.
    steps, left = [], 15000
    def ends(step): return gentle and step[0] in ('close', 'abort', 'eof', 'pshut', 'pclose', 'preset') and r.random() < .85
    for _ in range(r.randrange(3, 20)):
        if r.random() < .6:
            step = step_of_flow(r, sizes)
            if ends(step): continue
            steps.append(step)
            if step[0] == 'resume' or r.random() < .4: steps.append(['turn', r.randrange(1, 4)])
        else:
            step = r.choice([['psend'], ['pread', r.choice([1, 100, 4096, 60000])], ['pread', 1000], ['pread', 100000], ['pdrain'], ['pdrain'], ['pshut'], ['pclose'], ['preset']])
            if family == 'unix' and step[0] == 'preset': continue
            if ends(step): continue
            if step == ['psend']:
                size = min(left, r.choice([1, 10, 100, 3000])); left -= size
                if not size: continue
                step = ['psend', size]
            if tight: steps += [['turn', 2], step, *r.choice([[], [['turn', 1]], [['turn', 2]]])]; continue
            if step[0] in ('pdrain', 'pread'): steps.append(['settle'])
            steps.append(['turn', 2]); steps.append(step); steps.append(['settle'] if step[0] in ('pdrain', 'pread') or family == 'tcp' else r.choice([['settle'], ['turn', 3], ['turn', 4]]))
    hooks = {}
    for name in ('made', 'data', 'eof', 'pause', 'resume', 'lost'):
        if r.random() < .35:
            lists = [[step_of_flow(r, sizes) for _ in range(r.randrange(1, 3))] for _ in range(r.randrange(1, 3))]
            hooks[name] = [[step for step in list if not ends(step)] for list in lists]
    gone = min([steps.index([name]) for name in ('pclose', 'preset') if [name] in steps], default=len(steps))
    late = json.dumps([steps[gone:], gone < len(steps) and hooks])
    return {'family': family, 'sndbuf': sndbuf, 'batched': family == 'unix' or 'write' not in late, 'keep_open': r.random() < .4, 'early': r.choice([0, 0, 5]), 'steps': [['turn', 3], *steps], 'hooks': hooks}


class Ended(Exception): pass


def mend(cls):
    """Puts into CPython 3.13.0 what ringloop does else, mostly later fixes (WRITE-11, WRITE-22, TRANS-33b)."""
    def writelines(self, chunks, original=cls.writelines):
        if self._conn_lost and not self._eof and chunks: self._conn_lost += 1; return
        if self._closing and not self._eof and not self._buffer and chunks:  # In resume_writing or connection_lost: the end is yet to come.
            self._buffer.extend(chunks)
            try: self._adjust_leftover_buffer(self._sock.sendmsg(self._get_sendmsg_buffer()))
            except BlockingIOError: pass
            except OSError as e: self._fatal_error(e)
            if self._buffer: self._loop._add_writer(self._sock_fd, self._write_ready)
        else: original(self, chunks)
        if self._buffer: self._maybe_pause_protocol()
    def close(self):
        self._read_ready_cb = None; super(cls, self).close()
    def maybe_resume_protocol(self, original=cls._maybe_resume_protocol):
        lost = self._conn_lost; original(self)
        if self._conn_lost > lost: raise Ended  # resume_writing has closed.
    def write_sendmsg(self, original=cls._write_sendmsg):
        try: original(self)
        except (Ended, OSError): pass  # Of the shutdown: the peer is gone (WRITE-32).
    def call_connection_lost(self, error, original=cls._call_connection_lost):
        # Once, whatever happens inside; then it is lost for good (TRANS-33).
        if self._sock is None: return
        loop, fd = self._loop, self._sock_fd
        def force_close(error): self._buffer.clear(); self._conn_lost = max(1, self._conn_lost)
        self._force_close = force_close
        try: original(self, error)
        finally:
            self._conn_lost = max(1, self._conn_lost)
            if self._buffer: self._buffer.clear()
            loop._remove_writer(fd)
    cls._call_connection_lost = call_connection_lost
    cls._maybe_resume_protocol = maybe_resume_protocol
    cls.close, cls.writelines, cls._write_sendmsg = close, writelines, write_sendmsg


class Player(asyncio.Protocol):
    transport, end = None, 'closed'

    def __init__(self, script):
        self.lines, self.script, self.written, self.got, self.received, self.sent = [], script, 0, bytearray(), 0, 0
        self.hooks = {name: list(lists) for name, lists in script['hooks'].items()}
        self.lost = asyncio.get_running_loop().create_future()
    def log(self, event): self.lines.append(f'proto: {event}')
    def hook(self, name):
        if self.hooks.get(name):
            for step in self.hooks[name].pop(0): self.take(step)
    def connection_made(self, transport): self.transport = transport; self.log('connection_made'); self.hook('made')
    def data_received(self, data):
        equal = data == pattern(self.received, len(data)); self.received += len(data)
        self.log(f'data_received(<{len(data)} bytes>)')
        if not equal: self.log('other bytes')
        self.hook('data')
    def eof_received(self): self.log('eof_received'); self.hook('eof'); return self.script['keep_open']
    def pause_writing(self): self.log('pause_writing'); self.hook('pause')
    def resume_writing(self): self.log('resume_writing'); self.hook('resume')
    def connection_lost(self, error): self.log(f'connection_lost({kind(error)})'); self.lost.set_result(None); self.hook('lost')

    def size(self, size): return size if self.script['family'] == 'unix' else min(size, 1)  # How much TCP takes is nothing to rely on.
    def next(self, size): self.written += size; return pattern(self.written - size, size)
    def take(self, step):
        name, args, tr = step[0], step[1:], self.transport
        try:
            if name == 'write':
                tr.write(self.next(args[0]))
            elif name in ('writelines', 'many'):
                if name == 'many': args = [[args[1]] * args[0]]
                chunks = [self.next(size) for size in args[0]]
                # Trailing empty chunks, and a lost connection: CPython 3.13.0 fails there (WRITE-23, WRITE-24).
                while chunks and not chunks[-1]: chunks.pop()
                chunks = [chunk for chunk in chunks if chunk]
                tr.writelines(chunks)
            elif name == 'eof':
                try: tr.write_eof()
                except OSError: pass  # The peer is gone (WRITE-32).
            elif name == 'pause': tr.pause_reading()
            elif name == 'resume': tr.resume_reading()
            elif name == 'close': tr.close()
            elif name == 'abort': tr.abort()
            elif name == 'limits': tr.set_write_buffer_limits(*args)
            elif name == 'state': self.log(f'closing={tr.is_closing()} reading={tr.is_reading()} buffered={tr.get_write_buffer_size() > 0} limits={tr.get_write_buffer_limits()}')
            elif name == 'size': self.log(f'size={self.size(tr.get_write_buffer_size())}')
            elif name == 'sndbuf':
                try: tr.get_extra_info('socket').setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, args[0])
                except OSError: pass
            elif name == 'pread':
                try: self.got += self.peer.recv(args[0])
                except OSError as e: pass
            elif name == 'preset': self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); self.peer.close()
            elif name == 'psend':
                try: self.peer.send(pattern(self.sent, args[0])); self.sent += args[0]
                except OSError as e: self.lines.append(f'peer: {kind(e)}')
            elif name == 'pshut':
                try: self.peer.shutdown(socket.SHUT_WR)
                except OSError as e: self.lines.append(f'peer: {kind(e)}')
            elif name == 'pdrain': self.drain()
            elif name == 'pclose': self.peer.close()
        except (RuntimeError, ValueError) as e: self.log(f'{kind(e)}: {e}')

    def drain(self, told=True):
        before = len(self.got)
        if self.peer.fileno() < 0: self.end = 'closed'; return
        while True:
            try: data = self.peer.recv(1 << 16)
            except OSError as e: end = kind(e); break
            if not data: end = 'EOF'; break
            self.got += data
        self.end = end
        if told: self.lines.append(f'peer: drained some={len(self.got) > before} {end}')


def pair(family):
    if family == 'unix': a, b = socket.socketpair()
    else:
        l, a = (socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) for _ in range(2))  # Else it keeps Nagle (TRANS-06).
        for s in (l, a):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF): s.setsockopt(socket.SOL_SOCKET, option, 65536)
        l.bind(('127.0.0.1', 0)); l.listen(1); a.connect(l.getsockname()); b, _ = l.accept(); l.close(); b.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    a.setblocking(False); b.setblocking(False)
    return a, b


async def settle(): await asyncio.sleep(.002)


async def play(script):
    loop = asyncio.get_running_loop(); p = Player(script); a, p.peer = pair(script['family'])
    if script.get('sndbuf'): a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, script['sndbuf'])
    loop.set_exception_handler(lambda loop, context: p.lines.append(f'exc: {context["message"].split(" <")[0]} {kind(context.get("exception"))}'))
    if script['early']: p.take(['psend', script['early']])
    await loop.create_connection(lambda: p, sock=a); p.log('created')
    for step in script['steps']:
        if step[0] == 'turn':
            for _ in range(step[1]): await asyncio.sleep(0)
        elif step[0] == 'settle': await settle()
        elif step[0][0] == 'p' and step[0] != 'pause' and p.peer.fileno() < 0: pass
        else: p.take(step)
    await settle()
    p.take(['state']); p.take(['close'])
    for _ in range(3000):
        if p.lost.done(): break
        p.drain(told=False); await (settle() if script['family'] == 'tcp' else asyncio.sleep(0))
    assert p.lost.done(), (script, p.lines[-50:])
    p.drain(told=False); got = len(p.got)
    p.lines.append(f'peer: got size={p.size(got)} all={got == p.written} end={p.end} equal={p.got == pattern(0, got)}')
    if p.peer.fileno() >= 0: p.peer.close()
    return p.lines


def main():
    mend(asyncio.selector_events._SelectorSocketTransport)
    logging.getLogger('asyncio').propagate = False
    logging.getLogger('asyncio').addHandler(logging.NullHandler())
    if sys.argv[1] == '--show':
        with open(sys.argv[2]) as file: print(json.dumps(json.load(file)[int(sys.argv[3])], indent=1))
        return
    maker = make_flow if sys.argv[1] == '--flow' else make
    first, count, path = sys.argv[-3:]; out = []
    for seed in range(int(first), int(first) + int(count)):
        script = maker(seed)
        if '--unix' in sys.argv and script['family'] != 'unix': continue
        try: trace = asyncio.run(play(script))
        except AttributeError: continue  # After a flush CPython forgets its loop before it is closed.
        if 'AttributeError' not in str(trace): out.append({'seed': seed, **script, 'trace': trace})
    with open(path, 'w') as file: file.write('[\n' + ',\n'.join(json.dumps(x) for x in out) + '\n]\n')


if __name__ == '__main__':
    main()
