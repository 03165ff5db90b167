#!/usr/bin/env python3
"""Random scripts of socket calls in tasks, and what CPython logs of them.

usage: calls.py FIRST_SEED COUNT FILE    records COUNT scripts

A script calls recv, recv_into, sendall, accept and connect in tasks, cancels these or lets them time out, and closes and shuts
down the sockets of both sides. A line `--` ends an iteration; lines in between have no order, as of two sockets either may be
told first. How much the kernel takes of a large send is not told.

Left out is what ringloop does otherwise on purpose: a receive or an accept that is cancelled when its result is there (CPython
throws it away), and on AF_UNIX a socket that is closed with bytes that had come for a cancelled receive (only the kernel can
tell the peer that). A socket is not closed while a call waits (CPython would wait for a descriptor of that number for ever), and
connected once. Of two who wait for a datagram, ringloop gives it to whoever runs first, and
who waits when another one takes what is there hears of the next bytes an iteration later. A
connect that is refused or cancelled has told the socket's error, or not; such a socket is used no more. Nothing is asked of a closed socket.
"""
import asyncio, errno, json, logging, random, socket, sys, zlib

LARGE = 400000


def pattern(start, length):
    start &= 65535
    while len(PATTERN) < start + length: PATTERN.extend(PATTERN[:65536])
    return bytes(memoryview(PATTERN)[start:start + length])


PATTERN = bytearray((i * 7 + (i >> 8) * 13) & 255 for i in range(65536))


def make(seed):
    r = random.Random(seed)
    family = r.choice(['unix', 'unix', 'tcp', 'tcp', 'tcp', 'datagram'])
    names = ['a', 'b'] if family != 'tcp' else ['c0', 's0', 'c0', 's0', 'c1', 's1', 'c2']
    gentle = r.random() < .7  # Few ends, so that more happens before.
    # What a cancelled receive had got may be more than the next one wants, and the rest makes a later one short.
    sizes = r.choice([[1], [5], [700], [5000], [3000], [1, 5, 700, 5000]])
    mixed = len(sizes) > 1
    kinds = ['recv'] * 5 + ['into'] * 2 + ['timed'] * 2 + ['send'] * 7 + ['cancel'] * 4 + ['close', 'shut', 'pull', 'turn', 'turn']
    if family == 'tcp': kinds += ['accept'] * 3 + ['connect'] * 3 + ['patience', 'stop']
    if mixed: kinds = [kind for kind in kinds if kind not in ('cancel', 'timed')]
    def step():
        kind, name = r.choice(kinds), r.choice(names)
        if kind in ('close', 'shut', 'stop') and gentle and r.random() < .7: return ['turn', 1]
        if kind in ('recv', 'into'): return [kind, name, r.choice([0, *sizes * 4])]
        if kind == 'timed': return [kind, name, r.choice(sizes), r.choice([0, 0, 1, 1000000])]
        if kind == 'patience': return [kind, r.choice([0, 1])]
        if kind == 'send': return [kind, name, r.choice([0, 1, 3, 10, 1000, 4000] + [LARGE] * (family == 'unix'))]
        if kind == 'cancel': return [kind, r.choice([1, 1, 1, 2, 3])]
        if kind == 'turn': return [kind, r.randrange(1, 4)]
        if kind == 'connect': return [kind, r.choice(['c0', 'c1', 'c2'])]
        return [kind, name] if kind in ('close', 'shut', 'pull') else [kind]
    steps = r.choice([[['connect', 'c0'], ['accept'], ['turn', 5]], []]) if family == 'tcp' else []
    for _ in range(r.randrange(4, 30)):
        one = step()
        steps.append(one)
        if one[0] == 'timed' and one[3] == 1 or one[0] == 'patience' and one[1] == 1 or one[-1] == LARGE: steps.append(['settle'])
        elif family == 'tcp' and one[0] in ('send', 'connect', 'close', 'shut', 'stop'): steps.append(['settle'])  # What the peer sees may take a while.
        elif one[0] == 'send': steps.append(['turn', r.randrange(2, 4)])  # A ring has received before the next one runs.
        elif one[0] not in ('turn', 'pull') and r.random() < .6: steps.append(['turn', r.randrange(1, 4)])
    return {'family': family, 'one_reader': mixed or family == 'datagram', 'steps': steps}


def kind(error):
    if isinstance(error, OSError) and error.errno: return f'{type(error).__name__}[{errno.errorcode[error.errno]}]'
    return type(error).__name__


def shown(data): return repr(data) if len(data) <= 24 else f'<{len(data)} bytes, {zlib.adler32(data)}>'


def tcp_socket():
    """What is sent does not wait until what was sent before is acknowledged: that may take longer than a script."""
    s = socket.socket(); s.setblocking(False); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); return s


class Loop(asyncio.SelectorEventLoop):
    """Keeps what each task waits for."""
    waited = {}
    def create_future(self):
        future = super().create_future()
        if task := asyncio.current_task(self): self.waited[task] = future
        return future


class Player:
    def __init__(self, script):
        self.script, self.lines, self.block, self.tasks, self.calls, self.differs = script, [], [], [], [], False
        self.sockets, self.sent, self.got, self.accepted, self.forgotten = {}, {}, {}, 0, set()
        self.large, self.mute, self.tried, self.robbed = set(), set(), set(), set()
        if script['family'] == 'tcp':
            l = tcp_socket(); l.bind(('127.0.0.1', 0)); l.listen(20)
            self.sockets = {'l': l, **{f'c{i}': tcp_socket() for i in range(3)}}
            self.address = l.getsockname()
        else:
            pair = socket.socketpair(type=socket.SOCK_STREAM if script['family'] == 'unix' else socket.SOCK_DGRAM)
            self.sockets = dict(zip('ab', pair))
            for s in pair: s.setblocking(False)

    def lost(self, loop, context): self.differs = True  # A connection that came when nobody wanted it any more.
    def log(self, who, event): self.block.append(f'{who}: {event}')
    def mark(self): self.lines += [*sorted(self.block), '--']; self.block = []
    async def turn(self, count):
        for _ in range(count): await asyncio.sleep(0); self.mark()
    async def settle(self):
        await asyncio.sleep(.003)
        for _ in range(4): await asyncio.sleep(0)  # What was due before goes on, however late it is.
        self.mark()

    def data(self, name, data):
        """As it is shown: how a large send comes is up to the kernel."""
        who = f't{self.tasks.index(asyncio.current_task())}' if asyncio.current_task() in self.tasks else ''
        if who in self.robbed: self.differs = True
        self.robbed.update(other for other, step in self.active() if step[1] == name and other != who and step[0] != 'send')
        start = self.got.get(name, 0); self.got[name] = start + len(data)
        if not self.large: return shown(data)
        return f'some={len(data) > 0} equal={data == pattern(start, len(data))}'

    async def call(self, who, step):
        loop = asyncio.get_running_loop(); kind_of, name, *rest = step; s = self.sockets[name]
        try:
            if kind_of == 'recv': event = self.data(name, await loop.sock_recv(s, rest[0]))
            elif kind_of == 'timed':
                async with asyncio.timeout(rest[1] / 1000): event = self.data(name, await loop.sock_recv(s, rest[0]))
            elif kind_of == 'into':
                buffer = bytearray(rest[0]); count = await loop.sock_recv_into(s, buffer); event = self.data(name, bytes(buffer[:count]))
            elif kind_of == 'send':
                start = self.sent.get(name, 0); self.sent[name] = start + rest[0]
                await loop.sock_sendall(s, pattern(start, rest[0])); event = 'sent'
            elif kind_of in ('accept', 'patience'):
                if kind_of == 'accept': accepted, address = await loop.sock_accept(s)
                else:
                    async with asyncio.timeout(rest[0] / 1000): accepted, address = await loop.sock_accept(s)
                new = f's{self.accepted}'; self.accepted += 1; self.sockets[new] = accepted
                event = f'{new} same={address == accepted.getpeername()} blocking={accepted.getblocking()}'
            else: await loop.sock_connect(s, self.address); event = 'connected'
        except (asyncio.CancelledError, TimeoutError, OSError) as e:
            event = 'cancelled' if isinstance(e, asyncio.CancelledError) else kind(e)
            future = loop.waited.get(asyncio.current_task())
            if event in ('cancelled', 'TimeoutError'):
                if kind_of not in ('send', 'connect') and future and future.done() and not future.cancelled(): self.differs = True
                if kind_of == 'send' and rest[0] == LARGE: self.mute.add(name)
                self.forgotten.add(name)
                if kind_of == 'connect' and self.sockets['l'].fileno() < 0: self.differs = True
            elif kind_of == 'connect': del self.sockets[name]
            elif kind_of == 'send': self.mute.add(name)
        finally: loop.waited.pop(asyncio.current_task(), None)
        self.log(who, event)

    def active(self): return [(f't{i}', step) for i, (task, step) in enumerate(zip(self.tasks, self.calls)) if not task.done()]
    def busy(self, name, *kinds): return any(step[1] == name and (not kinds or step[0] in kinds) for _, step in self.active())

    def start(self, step):
        self.calls.append(step)
        self.tasks.append(asyncio.create_task(self.call(f't{len(self.tasks)}', step)))

    async def take(self, step):
        kind_of, *rest = step
        if kind_of == 'turn': return await self.turn(rest[0])
        if kind_of == 'settle': return await self.settle()
        if kind_of == 'cancel':
            if len(self.tasks) >= rest[0]: self.log('main', f'cancel={self.tasks[-rest[0]].cancel()}')
            return
        if kind_of in ('accept', 'patience', 'stop'): step = [kind_of, 'l', *rest]
        name = step[1]; s = self.sockets.get(name)
        if not s: return
        if kind_of == 'send':
            if name in self.mute or self.busy(name, 'send', 'connect'): return
            if step[2] == LARGE: self.large.add(name)
        if kind_of == 'connect':
            if name in self.tried: return
            self.tried.add(name)
        if kind_of in ('recv', 'into', 'timed'):
            if self.busy(name, 'connect') or s.fileno() < 0 and not step[2]: return
            if self.script['one_reader'] and self.busy(name, 'recv', 'into', 'timed'): return
        if kind_of == 'stop' and any(self.busy(f'c{i}', 'connect') for i in range(3)): return
        if kind_of in ('close', 'stop', 'pull', 'shut') and self.busy(name): return
        if kind_of in ('close', 'stop'): self.close(name)
        elif kind_of == 'shut':
            try: s.shutdown(socket.SHUT_WR)
            except OSError as e: self.log('main', kind(e))
        elif kind_of == 'pull': await self.pull(name)
        else: self.start(step)

    def close(self, name):
        s = self.sockets[name]
        if self.script['family'] != 'tcp' and name in self.forgotten and s.fileno() >= 0:
            try: self.differs |= bool(s.recv(1, socket.MSG_PEEK))
            except OSError: pass
        s.close()

    async def pull(self, name):
        """Receives what there is, and what comes when that is gone."""
        if name == 'l': return
        loop, calm, end, got = asyncio.get_running_loop(), 0, None, []
        while not end and calm < 2:
            try:
                async with asyncio.timeout(0): data = await loop.sock_recv(self.sockets[name], 65536)
                if data: got.append(data); calm = 0
                else: end = 'EOF'
            except TimeoutError: calm += 1; await self.settle()
            except OSError as e: end = kind(e)
        length = [len(data) for data in got] if self.script['family'] == 'datagram' else ''
        self.log('main', f'{name} pulled {length} {self.data(name, b"".join(got))} {end}')
        await self.settle()

    async def play(self):
        asyncio.get_running_loop().set_exception_handler(self.lost)
        for step in self.script['steps']: await self.take(step)
        await self.turn(4)
        self.log('main', f'waiting={",".join(who for who, _ in self.active())}')
        for task in self.tasks: task.cancel()
        await self.turn(4)
        for name in sorted(self.sockets): await self.pull(name)
        for s in self.sockets.values(): s.close()
        self.mark()


def record(first, count):
    scripts, seed = [], first
    while len(scripts) < count:
        player = Player(make(seed))
        with asyncio.Runner(loop_factory=Loop) as runner: runner.run(player.play())
        if not player.differs: scripts.append({'seed': seed, **player.script, 'trace': player.lines})
        seed += 1
    return scripts


def main():
    logging.getLogger('asyncio').propagate = False
    first, count, file = sys.argv[1:]
    scripts = record(int(first), int(count))
    with open(file, 'w') as out: out.write('[\n' + ',\n'.join(json.dumps(script) for script in scripts) + '\n]\n')
    print(f'{len(scripts)} scripts, the last of seed {scripts[-1]["seed"]}')


main()
