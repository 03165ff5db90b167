#!/usr/bin/env python3
"""Random scripts of steps in tasks and callbacks, and the order in which CPython takes them.

usage: tasks.py FIRST_SEED COUNT FILE [--all]    records COUNT scripts

Without --all those are left out in which a task is cancelled by itself, or while it waits on a future: CPython cancels the
future at once, and what it wakes stands in the queue before what comes later; ours does so at the task's next step.
"""
import asyncio, json, random, sys

FUTURES = 3


def steps_of(r, depth=0):
    def step():
        kind = r.choice(['log', 'log', 'turn', 'turn', 'turn', 'soon', 'soon', 'later', 'set', 'cancel future', 'wait', 'wait', 'watch',
                         'spawn', 'spawn', 'cancel task', 'cancel task', 'cancel task', 'catch', 'catch', 'cancel self', 'state'])
        if kind in ('set', 'cancel future', 'wait', 'watch', 'state'): return [kind, r.randrange(FUTURES)]
        if kind == 'cancel task': return [kind, r.randrange(6)]
        if kind == 'turn': return [kind, r.randrange(1, 4)]
        if kind in ('spawn', 'catch'): return [kind, steps_of(r, depth + 1)] if depth < 3 else ['turn', 1]
        if kind == 'cancel self' and r.random() < .5: return ['turn', 1]
        return [kind]
    return [step() for _ in range(r.randrange(1, 7 if depth else 10))]


class Player:
    def __init__(self):
        loop = asyncio.get_running_loop(); self.lines, self.tasks, self.count = [], [], 0
        self.differs = False
        self.asked = set()  # Tasks with a request to end that they have not seen.
        self.futures = [loop.create_future() for _ in range(FUTURES)]
    def log(self, event): self.lines.append(f'main: {event}')
    def number(self): self.count += 1; return self.count

    def cancel(self, task):
        self.differs |= task is asyncio.current_task() or task._fut_waiter in self.futures
        asked = task.cancel()
        if asked: self.asked.add(task)
        return asked

    async def run(self, name, steps):
        loop = asyncio.get_running_loop()
        for step in steps:
            kind, argument = step[0], step[1] if len(step) > 1 else None
            if kind == 'log': self.log(f'{name} {self.number()}')
            elif kind == 'turn':
                for _ in range(argument): await asyncio.sleep(0)
                self.log(f'{name} turned')
            elif kind in ('soon', 'later'):
                n = self.number()
                if kind == 'soon': loop.call_soon(self.log, f'soon {n}')
                else: loop.call_later(0, self.log, f'later {n}')
            elif kind == 'set':
                try: self.futures[argument].set_result(None)
                except asyncio.InvalidStateError: self.log(f'{name} InvalidStateError')
            elif kind == 'cancel future': self.log(f'{name} cancels {self.futures[argument].cancel()}')
            elif kind == 'state': f = self.futures[argument]; self.log(f'{name} done={f.done()} cancelled={f.cancelled()}')
            elif kind == 'watch': n = self.number(); self.futures[argument].add_done_callback(lambda f, n=n: self.log(f'watch {n} cancelled={f.cancelled()}'))
            elif kind == 'wait':
                f = self.futures[argument]; pending = not f.done()
                try: await f
                except asyncio.CancelledError:
                    if pending and asyncio.current_task() in self.asked: raise
                    self.log(f'{name} future was cancelled')
                else: self.log(f'{name} got {argument}')
            elif kind == 'spawn': self.spawn(argument)
            elif kind == 'cancel task':
                if argument < len(self.tasks): self.log(f'{name} cancels task {argument} {self.cancel(self.tasks[argument])}')
            elif kind == 'catch':
                try: await self.run(name, argument); self.log(f'{name} nothing caught')
                except asyncio.CancelledError:
                    self.asked.discard(asyncio.current_task())
                    self.log(f'{name} caught, uncancel={asyncio.current_task().uncancel()}')
            elif kind == 'cancel self': self.cancel(asyncio.current_task()); self.log(f'{name} cancels itself')

    def spawn(self, steps):
        index = len(self.tasks); name = f'task {index}'
        async def body():
            self.log(f'{name} begins')
            try: await self.run(name, steps)
            except asyncio.CancelledError: self.log(f'{name} is dropped'); raise
            self.log(f'{name} ends')
        self.tasks.append(asyncio.get_running_loop().create_task(body()))


async def play(script):
    p = Player()
    p.spawn(script['steps'])
    for _ in range(script['turns']): await asyncio.sleep(0)
    p.log('main cancels'); [p.cancel(task) for task in p.tasks]
    for _ in range(30):
        await asyncio.sleep(0)
        if all(task.done() for task in p.tasks): break
        [p.cancel(task) for task in p.tasks]
    p.log(f'main ends, all done={all(task.done() for task in p.tasks)}')
    return p


def make(seed):
    r = random.Random(seed)
    return {'steps': steps_of(r), 'turns': r.randrange(5, 30)}


def main():
    first, count = int(sys.argv[1]), int(sys.argv[2]); out = []
    for seed in range(first, first + count):
        script = make(seed); p = asyncio.run(play(script)); lines = p.lines
        if 5 < len(lines) < 80 and (not p.differs or sys.argv[4:] == ['--all']): out.append({'seed': seed, **script, 'trace': lines})
    with open(sys.argv[3], 'w') as file: file.write('[\n' + ',\n'.join(json.dumps(x) for x in out) + '\n]\n')


if __name__ == '__main__':
    main()
