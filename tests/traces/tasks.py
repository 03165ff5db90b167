#!/usr/bin/env python3
"""Random scripts of steps in tasks and callbacks, and the order in which CPython takes them.

usage: tasks.py FIRST_SEED COUNT FILE [--all] [--meeting]    records COUNT scripts

With --meeting the tasks also meet at locks, semaphores, conditions, events, barriers and queues, and stand in groups; scripts are
left out in which a task is cancelled while it waits for a condition: CPython has it take the lock again first.
Without --all those are left out in which a task is cancelled by itself, or while it waits on a future: CPython cancels the
future at once, and what it wakes stands in the queue before what comes later; ours does so at the task's next step.
"""
import asyncio, json, random, sys

FUTURES = 3


MEETING = ['log', 'turn', 'turn', 'turn', 'spawn', 'spawn', 'cancel task', 'cancel task', 'catch', 'lock', 'lock', 'semaphore', 'bounded',
           'event set', 'event clear', 'event wait', 'put', 'put', 'get', 'get', 'put now', 'get now', 'done', 'join', 'shutdown', 'barrier',
           'barrier', 'reset', 'abort', 'condition', 'notify', 'notify', 'group', 'group', 'group', 'shield', 'wait for all', 'in order', 'limit', 'join task']
HOLDING = ['log', 'turn', 'turn', 'cancel task', 'event set', 'put now', 'get now', 'catch', 'fail']


def meeting_of(r, depth=0, kinds=MEETING, may_fail=False):
    def step():
        kind = r.choice(kinds + ['fail'] * may_fail)
        if kind == 'fail' and not may_fail: return ['log']
        if kind == 'shutdown' and r.random() < .7: return ['turn', 1]
        if kind in ('put', 'get', 'put now', 'get now', 'done', 'join'): return [kind, r.choice([0, 0, 1, 2])]
        if kind == 'shutdown': return [kind, r.choice([0, 0, 1, 2]), r.randrange(2)]
        if kind in ('cancel task', 'shield', 'limit', 'join task'): return [kind, r.randrange(6)]
        if kind in ('wait for all', 'in order'): return [kind, r.sample(range(6), r.randrange(1, 4)), r.randrange(4)]
        if kind == 'notify': return [kind, r.randrange(1, 3)]
        if kind == 'turn': return [kind, r.randrange(1, 4)]
        if kind in ('spawn', 'catch', 'lock', 'semaphore', 'bounded', 'group') and depth >= 3: return ['turn', 1]
        if kind == 'spawn': return [kind, meeting_of(r, depth + 1)]
        if kind == 'group':
            some = lambda: meeting_of(r, depth + 1, may_fail=r.random() < .3)
            return [kind, some(), [some() for _ in range(r.randrange(0, 4))]]
        if kind == 'catch': return [kind, meeting_of(r, depth + 1, kinds, may_fail)]
        if kind in ('lock', 'semaphore', 'bounded'): return [kind, meeting_of(r, depth + 1, HOLDING, may_fail)]
        return [kind]
    return [step() for _ in range(r.randrange(1, 6 if depth else 12))]


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


class InOrder(dict):
    """The tasks of a group, which CPython keeps in a set: so it cancels them in any order, and ours in that of their making."""
    def add(self, task): self[task] = None
    def discard(self, task): self.pop(task, None)


class Player:
    def __init__(self):
        loop = asyncio.get_running_loop(); self.lines, self.tasks, self.count = [], [], 0
        self.differs = False
        self.asked = set()  # Tasks with a request to end that they have not seen.
        self.futures = [loop.create_future() for _ in range(FUTURES)]
        self.lock, self.semaphore, self.bounded = asyncio.Lock(), asyncio.Semaphore(2), asyncio.BoundedSemaphore(1)
        self.condition, self.event, self.barrier = asyncio.Condition(), asyncio.Event(), asyncio.Barrier(3)
        self.queues = [asyncio.Queue(2), asyncio.LifoQueue(2), asyncio.PriorityQueue()]
        self.in_condition, self.waiting = set(), {}
    def log(self, event): self.lines.append(f'main: {event}')
    def number(self): self.count += 1; return self.count

    def cancel(self, task):
        self.differs |= task is asyncio.current_task() or task._fut_waiter in self.futures or bool(self.in_condition)
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
            elif await self.meet(name, kind, step[1:]): pass
            elif kind == 'cancel self': self.cancel(asyncio.current_task()); self.log(f'{name} cancels itself')

    async def meet(self, name, kind, arguments):
        """Takes a step of those that --meeting adds."""
        argument = arguments[0] if arguments else None
        if kind in ('lock', 'semaphore', 'bounded'):
            async with {'lock': self.lock, 'semaphore': self.semaphore, 'bounded': self.bounded}[kind]:
                self.log(f'{name} has {kind}'); await self.run(name, argument)
            self.log(f'{name} gave {kind} back')
        elif kind == 'event set': self.event.set()
        elif kind == 'event clear': self.event.clear()
        elif kind == 'event wait': await self.event.wait(); self.log(f'{name} saw the event')
        elif kind in ('put', 'put now'):
            n = self.number() * 7 % 5
            try: await self.queues[argument].put(n) if kind == 'put' else self.queues[argument].put_nowait(n)
            except asyncio.QueueFull: self.log(f'{name} {argument} is full')
            except asyncio.QueueShutDown: self.log(f'{name} {argument} is shut down')
            else: self.log(f'{name} put {n} into {argument}')
        elif kind in ('get', 'get now'):
            try: item = await self.queues[argument].get() if kind == 'get' else self.queues[argument].get_nowait()
            except asyncio.QueueEmpty: self.log(f'{name} {argument} is empty')
            except asyncio.QueueShutDown: self.log(f'{name} {argument} is shut down')
            else: self.log(f'{name} got {item} from {argument}')
        elif kind == 'done':
            try: self.queues[argument].task_done()
            except ValueError as e: self.log(f'{name} {e}')
        elif kind == 'join': await self.queues[argument].join(); self.log(f'{name} joined {argument}')
        elif kind == 'shutdown': self.queues[argument].shutdown(bool(arguments[1])); self.log(f'{name} shuts {argument} down')
        elif kind == 'barrier':
            try: self.log(f'{name} passed as {await self.barrier.wait()}')
            except asyncio.BrokenBarrierError as e: self.log(f'{name} {e}')
        elif kind == 'reset': await self.barrier.reset()
        elif kind == 'abort': await self.barrier.abort()
        elif kind == 'condition':
            async with self.condition:
                self.log(f'{name} waits for the condition')
                self.in_condition.add(asyncio.current_task())
                await self.condition.wait()
                self.in_condition.discard(asyncio.current_task())
                self.log(f'{name} was notified')
        elif kind == 'notify':
            async with self.condition: self.condition.notify(argument); self.log(f'{name} notifies')
        elif kind == 'fail': self.log(f'{name} fails'); raise ValueError(f'of {name}')
        elif kind == 'group': await self.group(name, *arguments)
        elif kind in ('shield', 'limit', 'join task'):
            # Not in a child of a group: its parent waits for it, and a ring of those who wait cannot be cancelled.
            if argument >= len(self.tasks) or self.tasks[argument] is asyncio.current_task() or asyncio.current_task() not in self.tasks: return True
            task = self.tasks[argument]
            if self.waits_for(task, asyncio.current_task()): return True
            self.waiting[asyncio.current_task()] = task
            try: await (asyncio.shield(task) if kind == 'shield' else asyncio.wait_for(task, 0) if kind == 'limit' else task)
            except asyncio.CancelledError:
                if asyncio.current_task().cancelling(): raise
                self.log(f'{name} task was cancelled')
            except TimeoutError: self.log(f'{name} was in time for nothing')
            else: self.log(f'{name} waited for {argument}')
            finally: del self.waiting[asyncio.current_task()]
        elif kind in ('wait for all', 'in order'):
            known = [self.tasks[i] for i in argument if i < len(self.tasks) and self.tasks[i] is not asyncio.current_task()]
            if not known: return True
            limit = 0 if arguments[1] == 3 else None
            if kind == 'wait for all':
                mode = [asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION, asyncio.ALL_COMPLETED, asyncio.ALL_COMPLETED][arguments[1]]
                done, pending = await asyncio.wait(known, timeout=limit, return_when=mode)
                self.log(f'{name} waited: {[int(task in done) for task in known]}')
            else:
                many = len(known) > 1  # The order of those that are done already is that of a set.
                if many and any(task.done() for task in known): self.differs = True
                try:
                    async for task in asyncio.as_completed(known, timeout=limit): self.log(f'{name} next is {self.tasks.index(task)}')
                except TimeoutError: self.log(f'{name} too late')
        else: return False
        return True

    def waits_for(self, task, for_whom):
        while task is not None and task is not for_whom: task = self.waiting.get(task)
        return task is for_whom

    async def group(self, name, body, children):
        try:
            async with asyncio.TaskGroup() as group:
                group._tasks = InOrder()
                async def child(child_name, steps):
                    self.log(f'{child_name} begins')
                    try: await self.run(child_name, steps)
                    except asyncio.CancelledError: self.log(f'{child_name} is dropped'); raise
                    self.log(f'{child_name} ends')
                for index, steps in enumerate(children): group.create_task(child(f'{name}.{index}', steps))
                await self.run(name, body)
        except ExceptionGroup as e: self.log(f'{name} group: {[str(error) for error in e.exceptions]}')
        else: self.log(f'{name} group ended')

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


def make(seed, meeting):
    r = random.Random(seed)
    return {'steps': (meeting_of if meeting else steps_of)(r), 'turns': r.randrange(5, 30)}


def main():
    first, count = int(sys.argv[1]), int(sys.argv[2]); out = []
    for seed in range(first, first + count):
        script = make(seed, '--meeting' in sys.argv); p = asyncio.run(play(script)); lines = p.lines
        ended = 'main: main ends, all done=True' in lines  # What run() cancels after that, it cancels in any order.
        if ended and 5 < len(lines) < 80 and (not p.differs or '--all' in sys.argv): out.append({'seed': seed, **script, 'trace': lines})
    with open(sys.argv[3], 'w') as file: file.write('[\n' + ',\n'.join(json.dumps(x) for x in out) + '\n]\n')


if __name__ == '__main__':
    main()
