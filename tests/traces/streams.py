#!/usr/bin/env python3
"""Random scripts of what happens to one reader, and what CPython logs of them.

usage: streams.py FIRST_SEED COUNT FILE    records COUNT scripts

A script feeds a reader, ends it, breaks it, reads from it in tasks and cancels these. Left out is what ringloop does otherwise
on purpose: a read that finds its bytes taken by another one (CPython gives nothing, as at the end), one that waits on for ever
after an error that came when it was woken already, and a read to the end that is cancelled or refused, or beside which others
read (CPython has taken what is there, and throws it away). And one that fails at the end leaves a paused transport paused,
and one that was woken may make another wait for ever.
"""
import asyncio, json, random, sys, zlib

SEPARATORS = ['\n', '#', '##', '\r\n', 'ab', 'aab', '#\n#']


def shown(data):
    return repr(data) if len(data) <= 24 else f'<{len(data)} bytes, {zlib.adler32(data)}>'


def text(r): return ''.join(r.choice('aaaab#\r\n') for _ in range(r.choice([0, 1, 1, 2, 3, 5, 8, 13, 30])))


def make(seed):
    r = random.Random(seed)
    limit = r.choice([1, 2, 3, 5, 8, 12, 20, 64, 5000])
    # Longer than what is copied, too.
    long = r.random() < .15
    def step():
        kind = r.choice(['feed'] * 8 + ['read'] * 3 + ['exactly'] * 3 + ['until'] * 3 + ['line'] * 3 + ['all', 'cancel', 'cancel', 'turn', 'turn', 'turn', 'turn', 'state', 'state', 'state', 'eof', 'error'])
        if kind in ('eof', 'error') and r.random() < .75: return ['turn', 1]
        if kind == 'feed': return [kind, text(r), r.choice([1, 100, 700]) if long else 1]
        if kind == 'read': return [kind, r.choice([0, 1, 2, 3, 7, 20, 100] + [3000] * long)]
        if kind == 'exactly': return [kind, r.choice([0, 1, 2, 5, 9, 30] + [5000] * long)]
        if kind == 'until': return [kind, r.sample(SEPARATORS, r.choice([1, 1, 1, 2, 3]))]
        if kind == 'turn': return [kind, r.randrange(1, 4)]
        return [kind]
    steps = []
    for _ in range(r.randrange(4, 30)):
        one = step()
        if one[0] == 'feed' and ['eof'] in steps and r.random() < .8: continue
        if one[0] == 'state': steps.append(['turn', 2])
        steps.append(one)
        if one[0] in ('read', 'exactly', 'until', 'line', 'all') and r.random() < .7: steps.append(['turn', r.randrange(1, 3)])
    return {'limit': limit, 'steps': steps}


class Transport:
    def __init__(self): self.reading = True
    def pause_reading(self): assert self.reading; self.reading = False
    def resume_reading(self): assert not self.reading; self.reading = True


class Player:
    def __init__(self, script):
        self.script, self.lines, self.active, self.tasks, self.differs = script, [], {}, [], False
        self.reader, self.transport = asyncio.StreamReader(limit=script['limit']), Transport()
        self.reader.set_transport(self.transport)

    def log(self, lane, event): self.lines.append(f'{lane}: {event}')

    def look_for_lost(self):
        """A read that was woken clears the place of the one that waits since, and nothing wakes that any more."""
        woken = not self.reader._waiter and len(self.active) == 1
        if len(self.active) > (1 if self.reader._waiter or woken else 0): self.differs = True

    async def read(self, name, kind, argument):
        r = self.reader
        if 'all' in self.active.values(): self.differs = True
        self.active[name] = kind
        try:
            if kind == 'read': data = await r.read(argument)
            elif kind == 'exactly': data = await r.readexactly(argument)
            elif kind == 'until': data = await r.readuntil(tuple(s.encode() for s in argument))
            elif kind == 'line': data = await r.readline()
            else: data = await r.read(-1)
            if kind == 'read' and argument and not data and not r._eof: self.differs = True
            if data and len(self.active) > 1: self.differs = True
            self.log(name, shown(data))
        except asyncio.LimitOverrunError as e: self.log(name, f'LimitOverrunError consumed={e.consumed} {e}')
        except asyncio.IncompleteReadError as e:
            if not self.transport.reading: self.differs = True
            self.log(name, f'IncompleteReadError partial={shown(e.partial)} expected={e.expected} {e}')
        except (RuntimeError, ValueError) as e:
            if kind == 'all' or type(e) is ValueError and len(self.active) > 1: self.differs = True
            self.log(name, f'{type(e).__name__}: {e}')
        except OSError as e: self.log(name, f'{e}')
        except asyncio.CancelledError:
            if kind == 'all': self.differs = True
            self.log(name, 'cancelled')
        finally: del self.active[name]

    async def play(self):
        r = self.reader
        for kind, *rest in self.script['steps']:
            if kind == 'feed':
                try: r.feed_data(rest[0].encode() * rest[1])
                except AssertionError: self.log('main', 'AssertionError')
            elif kind == 'eof': r.feed_eof()
            elif kind == 'error':
                woken = self.active and r._waiter is None
                if 'all' in self.active.values() or woken: self.differs = True
                r.set_exception(OSError('broken'))
            elif kind == 'turn':
                for _ in range(rest[0]): await asyncio.sleep(0)
                self.look_for_lost()
            elif kind == 'cancel':
                if self.tasks: self.log('main', f'cancel={self.tasks[-1].cancel()}')
            elif kind == 'state': self.log('main', f'at_eof={r.at_eof()} reading={self.transport.reading} exception={r.exception() is not None}')
            else: self.tasks.append(asyncio.create_task(self.read(f't{len(self.tasks)}', kind, rest[0] if rest else None)))
        for _ in range(4): await asyncio.sleep(0)
        self.look_for_lost()
        if r.exception() and self.active: self.differs = True
        if len(self.active) > 1: self.differs = True
        self.log('main', f'at_eof={r.at_eof()} active={len(self.active)}')
        for task in self.tasks: task.cancel()
        for _ in range(4): await asyncio.sleep(0)
        if not r.exception(): r._eof = True; self.log('main', f'left={shown(await r.read(-1))}')


async def record(first, count):
    scripts, seed = [], first
    while len(scripts) < count:
        player = Player(make(seed))
        await player.play()
        if not player.differs: scripts.append({'seed': seed, **player.script, 'trace': player.lines})
        seed += 1
    return scripts


def main():
    first, count, file = sys.argv[1:]
    scripts = asyncio.run(record(int(first), int(count)))
    with open(file, 'w') as out: out.write('[\n' + ',\n'.join(json.dumps(script) for script in scripts) + '\n]\n')
    print(f'{len(scripts)} scripts, the last of seed {scripts[-1]["seed"]}')


main()
