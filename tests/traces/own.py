#!/usr/bin/env python3
"""Our own scenarios, the CPython side: they prove rows that no published scenario proves.

usage: own.py [ID...]            prints traces
       own.py --json own.json    records them

Each has the id of the trace that docs/behaviour.md names for its rows. Traces were recorded with CPython 3.13.0; EXPECTED
holds the few in which ringloop follows a later fix.
"""
import asyncio, contextvars, errno, json, logging, os, resource, signal, socket, struct, sys, threading, time

SCENARIOS = []


def scenario(id, order='total'):
    return lambda f: SCENARIOS.append((id, order, f))


class Trace:
    def __init__(self): self.lines = []
    def log(self, event, lane='main'): self.lines.append(f'{lane}: {event}')


def kind(error):
    if error is None: return 'None'
    if isinstance(error, OSError) and error.errno: return f'{type(error).__name__}[{errno.errorcode[error.errno]}]'
    return type(error).__name__


def short(data):
    data = bytes(data)
    return repr(data) if len(data) <= 24 else f'<{len(data)} bytes>'


def pair():
    a, b = socket.socketpair()
    a.setblocking(False); b.setblocking(False)
    return a, b


def tcp_pair():
    l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(1)
    a = socket.socket(); a.connect(l.getsockname())
    b, _ = l.accept(); l.close()
    a.setblocking(False); b.setblocking(False)
    return a, b


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); sock.close()


def drain(sock):
    out = b''
    while True:
        try: data = sock.recv(1 << 20)
        except BlockingIOError: return out, 'EAGAIN'
        except OSError as e: return out, kind(e)
        if not data: return out, 'EOF'
        out += data


async def drain_all(sock):
    out = b''
    while True:
        data, end = drain(sock); out += data
        if end != 'EAGAIN': return out, end
        await asyncio.sleep(0.001)


class P(asyncio.Protocol):
    def __init__(self, t, lane='proto', keep_open=False, count=False, **hooks):
        self.t, self.lane, self.keep_open, self.count, self.hooks = t, lane, keep_open, count, hooks
        self.total = 0; self.lost = asyncio.get_running_loop().create_future()
    def log(self, event): self.t.log(event, self.lane)
    def hook(self, name, *args):
        if name in self.hooks: self.hooks[name](self, *args)
    def connection_made(self, transport):
        self.transport = transport; self.log('connection_made'); self.hook('made')
    def data_received(self, data):
        self.total += len(data)
        if not self.count: self.log(f'data_received({short(data)})')
        self.hook('data', data)
    def eof_received(self):
        self.log(f'eof_received after {self.total} bytes' if self.count else 'eof_received'); self.hook('eof'); return self.keep_open
    def pause_writing(self): self.log('pause_writing'); self.hook('pause')
    def resume_writing(self): self.log('resume_writing'); self.hook('resume')
    def connection_lost(self, error):
        self.log(f'connection_lost({kind(error)})'); self.lost.set_result(None); self.hook('lost')


async def attach(t, sock, **kw):
    return await asyncio.get_running_loop().create_connection(lambda: P(t, **kw), sock=sock)


async def turn(n=1):
    for _ in range(n): await asyncio.sleep(0)


async def settle(): await asyncio.sleep(0.03)


def log_reports(t, loop=None):
    def handler(loop, context):
        message = context['message']
        if message.startswith('Exception in callback'): message = 'Exception in callback <cb>'
        t.log(f'handler("{message}", {kind(context.get("exception"))})', 'exc')
    (loop or asyncio.get_running_loop()).set_exception_handler(handler)


def fail(*args): raise ValueError('boom')


async def echo_server(t, **kw):
    made = []
    def factory():
        made.append(P(t, lane=f'srv{len(made)}', data=lambda p, d: p.transport.write(d))); return made[-1]
    return await asyncio.get_running_loop().create_server(factory, '127.0.0.1', 0, **kw), made


def client(server):
    c = socket.socket(); c.connect(server.sockets[0].getsockname()); c.setblocking(False)
    return c


# A callback that fails is reported, and the others of its iteration run.
@scenario('L08')
def _(t):
    loop = asyncio.new_event_loop(); log_reports(t, loop)
    loop.call_soon(t.log, 'A'); loop.call_soon(fail); loop.call_soon(t.log, 'B')
    loop.call_at(loop.time() - 1, fail); loop.call_soon(loop.stop)
    loop.run_forever(); t.log('ended'); loop.close()


# Futures: done once; callbacks come soon, in order, also on a done future; they can be taken back.
@scenario('L10')
async def _(t):
    loop = asyncio.get_running_loop(); f = loop.create_future()
    first = lambda f: t.log(f'first {f.result()}'); second = lambda f: t.log('second'); third = lambda f: t.log('third')
    f.add_done_callback(first); f.add_done_callback(second); f.add_done_callback(third); f.add_done_callback(second)
    t.log(f'removed={f.remove_done_callback(second)} again={f.remove_done_callback(second)}')
    f.set_result(1); t.log(f'done={f.done()}')
    for action in (lambda: f.set_result(2), lambda: f.set_exception(ValueError())):
        try: action()
        except asyncio.InvalidStateError: t.log('InvalidStateError')
    t.log(f'cancel={f.cancel()}'); await turn()
    f.add_done_callback(lambda f: t.log('late')); t.log('added'); await turn()
    g = loop.create_future(); g.add_done_callback(lambda g: t.log(f'g cancelled={g.cancelled()}'))
    for look in (g.result, g.exception):
        try: look()
        except asyncio.InvalidStateError: t.log('InvalidStateError')
    t.log(f'cancel={g.cancel()} again={g.cancel()}'); await turn()
    try: await g
    except asyncio.CancelledError: t.log('CancelledError')
    h = loop.create_future(); h.set_result(3); loop.call_soon(t.log, 'soon'); t.log(f'at once {await h}'); await turn()


# Context variables: tasks and callbacks begin with what is set where they are made, and nobody sees what they set.
@scenario('L42')
async def _(t):
    loop = asyncio.get_running_loop(); number = contextvars.ContextVar('number')
    seen = lambda who: t.log(f'{who} {number.get(None)}')
    seen('main')
    number.set(1)
    def soon():
        seen('soon'); number.set(11); seen('soon then'); loop.call_soon(seen, 'soon inner')
    async def child():
        seen('child'); number.set(21); await turn(); seen('child then')
        await asyncio.create_task(grandchild()); seen('child after')
    async def grandchild():
        seen('grandchild'); number.set(31)
    loop.call_soon(soon); loop.call_later(0, seen, 'later'); task = loop.create_task(child())
    f = loop.create_future(); f.add_done_callback(lambda f: seen('done'))
    number.set(2); f.set_result(None); seen('main')
    loop.call_soon(seen, 'last'); context = contextvars.copy_context(); number.set(3)
    await task; seen('main')
    t.log(f'copy {context.run(number.get)}')
    async def other(): seen('in a copy')
    await context.run(loop.create_task, other())
    async def many(i): seen(f'of many {i}'); number.set(i)
    await asyncio.gather(many(1), many(2)); seen('main')


# Tasks: a cancelled one is not done yet; the body may catch it; before its first step it never runs.
@scenario('L11')
async def _(t):
    async def wait(name, catch=False):
        t.log(f'{name} begins')
        try: await asyncio.sleep(10)
        except asyncio.CancelledError:
            t.log(f'{name} CancelledError')
            if not catch: raise
        await turn(); t.log(f'{name} ends'); return name
    task = asyncio.create_task(wait('one')); await turn()
    t.log(f'cancel={task.cancel()} done={task.done()}'); await turn(); t.log(f'done={task.done()} cancelled={task.cancelled()} cancel={task.cancel()}')
    task = asyncio.create_task(wait('two', catch=True)); await turn(); task.cancel(); t.log(f'result={await task} cancelled={task.cancelled()} cancelling={task.cancelling()}')
    task = asyncio.create_task(wait('three')); task.cancel()
    try: await task
    except asyncio.CancelledError: t.log(f'cancelled={task.cancelled()}')
    task = asyncio.create_task(wait('four', catch=True)); await turn(); task.cancel(); task.cancel(); t.log(f'cancelling={task.cancelling()} uncancel={task.uncancel()}'); t.log(f'result={await task}')


# gather: results in their order, the first error while the others go on, errors as values, a cancel for all.
@scenario('L13')
async def _(t):
    async def work(name, turns, fails=False):
        t.log(f'{name} begins')
        try: await turn(turns)
        except asyncio.CancelledError: t.log(f'{name} CancelledError'); raise
        t.log(f'{name} ends')
        if fails: raise ValueError
        return name
    t.log(', '.join(await asyncio.gather(work('a', 3), work('b', 1)))); t.log(f'empty={len(await asyncio.gather())}')
    try: await asyncio.gather(work('c', 3), work('d', 0, fails=True))
    except ValueError: t.log('ValueError')
    await turn(4)
    results = await asyncio.gather(work('e', 1, fails=True), work('f', 2), return_exceptions=True); t.log(', '.join(kind(x) if isinstance(x, Exception) else x for x in results))
    both = asyncio.gather(work('g', 50), work('h', 50)); await turn(); t.log(f'cancel={both.cancel()}')
    try: await both
    except asyncio.CancelledError: t.log('CancelledError')
    async def outer(): await asyncio.gather(work('i', 50), work('j', 50))
    task = asyncio.create_task(outer()); await turn(2); task.cancel(); await turn(3); t.log(f'cancelled={task.cancelled()}')


# What other threads send stands in the same queue, where it was sent: before what this thread schedules afterwards.
@scenario('L40')
def _(t):
    loop = asyncio.new_event_loop()
    def send(*events):
        def call():
            for event in events: loop.call_soon_threadsafe(t.log, event)
        thread = threading.Thread(target=call); thread.start(); thread.join()
    def first(): t.log('first'); send('X'); loop.call_soon(t.log, 'Y'); send('Z', 'Z again'); loop.call_soon(loop.call_soon, loop.stop)
    send('early'); loop.call_soon(first); send('late'); loop.run_forever(); loop.close()


# A timer that is due in the iteration of the deadline finds the future cancelled: its value is refused, and not lost.
@scenario('L41')
async def _(t):
    loop = asyncio.get_running_loop(); future = loop.create_future()
    async def wait():
        try:
            async with asyncio.timeout(.02): await future
        except TimeoutError: t.log('TimeoutError')
    def give():
        try: future.set_result(1); t.log('set')
        except asyncio.InvalidStateError: t.log(f'refused, cancelled={future.cancelled()}')
    task = asyncio.create_task(wait()); await turn(); loop.call_later(.021, give); time.sleep(.05); await task


# Each signal is told, in the order of their arrival.
@scenario('X10')
def _(t):
    loop = asyncio.new_event_loop(); one, two = signal.SIGUSR1, signal.SIGUSR2
    loop.add_signal_handler(one, t.log, 'one'); loop.add_signal_handler(two, t.log, 'two')
    for number in (two, one, one, two): signal.raise_signal(number)
    loop.call_later(.05, loop.stop); loop.run_forever()
    signal.raise_signal(two); loop.remove_signal_handler(two); signal.raise_signal(one); loop.call_later(.05, loop.stop); loop.run_forever(); loop.close()


# remove_reader takes back a callback that is queued; a callback may remove any watcher, its own too.
@scenario('R02')
async def _(t):
    loop = asyncio.get_running_loop(); a, b = pair(); b.send(b'x')
    loop.add_reader(a, t.log, 'taken back'); await turn(); t.log(f'remove={loop.remove_reader(a)}'); await turn(2)
    c, d = pair(); d.send(b'x'); calls = []
    def cb(): calls.append(1); loop.remove_reader(a); loop.remove_reader(c)
    loop.add_reader(a, cb); loop.add_reader(c, cb); await turn(4); t.log(f'calls={len(calls)}')
    loop.add_reader(a, lambda: (t.log('first'), loop.add_reader(a, lambda: (t.log('second'), loop.remove_reader(a)))))
    await turn(4)
    for s in (a, b, c, d): s.close()


# add_reader and add_writer replace the callback, also one that is queued.
@scenario('R03')
async def _(t):
    loop = asyncio.get_running_loop(); a, b = pair(); b.send(b'x')
    loop.add_reader(a, t.log, 'old'); await turn(); loop.add_reader(a, t.log, 'new'); t.log('replaced'); await turn(2); t.log(f'remove={loop.remove_reader(a)}')
    loop.add_writer(a, t.log, 'old writer'); await turn(); loop.add_writer(a, t.log, 'new writer'); t.log('replaced'); await turn(2); t.log(f'remove={loop.remove_writer(a)}')
    a.close(); b.close()


# What cannot be written does not fire its writer; a hang-up does; half-closed and listening sockets are watched.
@scenario('R10')
async def _(t):
    loop = asyncio.get_running_loop(); r, w = os.pipe(); os.set_blocking(w, False); os.set_blocking(r, False)
    try:
        while True: os.write(w, bytes(65536))
    except BlockingIOError: pass
    loop.add_writer(w, lambda: (t.log('pipe writer'), loop.remove_writer(w))); await turn(3); t.log('full'); os.close(r); await turn(3); os.close(w)
    a, b = pair()
    try:
        while True: a.send(bytes(65536))
    except BlockingIOError: pass
    loop.add_writer(a, lambda: (t.log('socket writer'), loop.remove_writer(a))); await turn(3); t.log('full'); b.close(); await turn(3); a.close()
    a, b = pair(); b.shutdown(socket.SHUT_WR); loop.add_reader(a, lambda: (t.log(f'half-closed {a.recv(1)}'), loop.remove_reader(a))); await turn(3); a.close(); b.close()
    l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(1); l.setblocking(True)
    loop.add_reader(l, lambda: (t.log('listener'), loop.remove_reader(l))); await turn(3); t.log('quiet'); c = socket.create_connection(l.getsockname()); await turn(3); c.close(); l.close()


# EOF without an answer closes.
@scenario('T02')
async def _(t):
    a, b = pair(); tr, p = await attach(t, a); b.shutdown(socket.SHUT_WR); await p.lost; t.log(f'closing={tr.is_closing()} peer={drain(b)}'); b.close()


# A reset of an idle connection: its error, and no report.
@scenario('T04')
async def _(t):
    log_reports(t); a, b = tcp_pair(); tr, p = await attach(t, a); reset(b); await p.lost; t.log(f'closing={tr.is_closing()}')


# Data and EOF that wait together are told in iterations of their own.
@scenario('T05')
async def _(t):
    a, b = pair(); b.send(b'data'); b.close()
    tr, p = await attach(t, a)
    for i in range(5): await turn(); t.log(f'turn {i}', 'proto')


# Paused is silent at once, though the event is queued; what comes after resume comes later.
@scenario('T07')
async def _(t):
    a, b = pair(); tr, p = await attach(t, a); await turn(2); b.send(b'one'); await turn(); tr.pause_reading(); t.log('paused', 'proto'); await settle(); t.log('quiet', 'proto')
    tr.resume_reading(); t.log('resumed', 'proto'); await turn(2); b.send(b'two'); b.shutdown(socket.SHUT_WR); await turn(); tr.pause_reading(); await settle(); t.log('quiet', 'proto')
    tr.resume_reading(); t.log('resumed', 'proto'); await p.lost; b.close()


# Paused in data_received: the rest waits, and the peer is throttled.
@scenario('T08')
async def _(t):
    a, b = pair(); data = os.urandom(4 << 20); got = []
    def hook(p, d):
        got.append(bytes(d))
        if len(got) == 1: p.transport.pause_reading(); t.log('paused', 'proto')
    tr, p = await attach(t, a, count=True, data=hook); sent = 0; quiet = 0
    while quiet < 20:
        try: sent += b.send(data[sent:sent + 65536]); quiet = 0
        except BlockingIOError: quiet += 1
        await turn()
    t.log(f'throttled={sent < len(data) // 2} one call={len(got) == 1}'); tr.resume_reading()
    while sent < len(data):
        try: sent += b.send(data[sent:sent + 65536])
        except BlockingIOError: pass
        await turn()
    b.close(); await p.lost; t.log(f'equal={b"".join(got) == data}')


# Written after the loss: ignored, and warned about from the sixth time on.
@scenario('T18')
async def _(t):
    warnings = []
    class Handler(logging.Handler):
        def emit(self, record): warnings.append(record.getMessage())
    handler = Handler(); logging.getLogger('asyncio').addHandler(handler)
    a, b = pair(); tr, p = await attach(t, a); tr.close()
    for _ in range(10): tr.write(b'x')
    tr.write(b''); t.log(f'warnings={len(warnings)}'); await p.lost; tr.write(b'x'); t.log(f'peer={drain(b)} size={tr.get_write_buffer_size()}'); b.close()
    logging.getLogger('asyncio').removeHandler(handler)


# The send fails inside write: nothing is raised or reported, the connection is lost with the error.
@scenario('T19')
async def _(t):
    log_reports(t); a, b = pair(); tr, p = await attach(t, a); tr.pause_reading(); b.close(); tr.write(b'x'); t.log('write returned', 'proto'); t.log(f'closing={tr.is_closing()}', 'proto'); tr.write(b'y'); await p.lost
    a, b = tcp_pair(); tr, p = await attach(t, a); reset(b); tr.write(b'x'); await p.lost


# An error of the system that a protocol raises is silent; any other is reported.
@scenario('T21')
async def _(t):
    log_reports(t)
    def aborted(*args): raise ConnectionAbortedError(errno.ECONNABORTED, 'mine')
    def timed_out(*args): raise TimeoutError(errno.ETIMEDOUT, 'mine')
    a, b = pair(); tr, p = await attach(t, a, data=aborted); b.send(b'x'); await p.lost; b.close()
    a, b = pair(); tr, p = await attach(t, a, eof=timed_out); b.shutdown(socket.SHUT_WR); await p.lost; b.close()
    a, b = pair(); tr, p = await attach(t, a, data=fail); b.send(b'x'); await p.lost; b.close()


# A connection_made that fails is only reported.
@scenario('T22')
async def _(t):
    log_reports(t); a, b = pair(); b.send(b'x'); tr, p = await attach(t, a, made=fail); t.log('returned', 'proto'); await turn(2); t.log(f'closing={tr.is_closing()}', 'proto'); tr.write(b'y'); await turn(2); t.log(f'peer={drain(b)}', 'proto'); tr.close(); await p.lost; b.close()


# Water marks: defaults, one from the other, refused ones; setting them may pause at once and never resumes.
@scenario('T28')
async def _(t):
    a, b = pair(); tr, p = await attach(t, a); t.log(f'{tr.get_write_buffer_limits()}', 'proto')
    for kw in (dict(high=100), dict(low=100), dict(high=10, low=3), dict(high=0), dict(high=7), dict(low=0), dict()):
        tr.set_write_buffer_limits(**kw); t.log(f'{tr.get_write_buffer_limits()}', 'proto')
    try: tr.set_write_buffer_limits(high=5, low=6)
    except ValueError as e: t.log(f'ValueError: {e}', 'proto')
    t.log(f'{tr.get_write_buffer_limits()}', 'proto')
    tr.set_write_buffer_limits(high=4 << 20); tr.write(bytes(1 << 20)); t.log('written', 'proto'); size = tr.get_write_buffer_size()
    tr.set_write_buffer_limits(high=size); t.log('as large', 'proto'); tr.set_write_buffer_limits(high=size - 1); t.log('smaller', 'proto')
    tr.set_write_buffer_limits(high=4 << 20, low=2 << 20); t.log('larger', 'proto'); tr.write(b'x'); drain(b); await settle(); tr.abort(); await p.lost; b.close()


# close and abort in connection_made: the creator returns, nothing is delivered.
@scenario('T30')
async def _(t):
    for name in ('close', 'abort'):
        a, b = pair(); b.send(b'early'); tr, p = await attach(t, a, made=lambda p: getattr(p.transport, name)()); t.log(f'{name}: returned closing={tr.is_closing()}', 'proto'); await p.lost; await turn(2); b.close()
    a, b = pair(); b.send(b'early'); tr, p = await attach(t, a, made=lambda p: (p.transport.write(b'bye'), p.transport.close())); await p.lost; t.log(f'peer={drain(b)[0]}', 'proto'); b.close()


# resume_writing that writes again, to its own transport and to another; order is kept.
@scenario('T31')
async def _(t):
    a, b = pair(); c, d = pair(); data = os.urandom(1 << 20); n = []
    other, q = await attach(t, c, lane='other')
    def resume(p):
        n.append(1); other.write(b'%d' % len(n)); t.log(f'size<=low={p.transport.get_write_buffer_size() <= 16384}', 'proto')
        if len(n) < 3: p.transport.write(data); t.log('written again', 'proto')
    tr, p = await attach(t, a, resume=resume); tr.write(data); got = b''
    while len(got) < 3 * len(data): got += drain(b)[0]; await turn()
    await settle(); t.log(f'equal={got == 3 * data} size={tr.get_write_buffer_size()}', 'proto'); t.log(f'other={drain(d)}', 'proto'); tr.close(); await p.lost; other.close(); await q.lost; b.close(); d.close()


# Inside connection_lost: after a flush, what is written is still sent; otherwise it comes too late. The rest changes nothing.
@scenario('T42')
async def _(t):
    def lost(p):
        tr = p.transport
        def state(): return f'closing={tr.is_closing()} reading={tr.is_reading()} size={tr.get_write_buffer_size()}'
        t.log(state(), 'proto')
        try: tr.write(b'late'); tr.write(b'r'); t.log('written', 'proto')
        except RuntimeError as e: t.log(f'RuntimeError: {e}', 'proto')
        tr.write_eof(); tr.pause_reading(); tr.resume_reading(); tr.set_write_buffer_limits(high=0); tr.close()
        q = P(t, lane='other'); tr.set_protocol(q); t.log(f'{state()} limits={tr.get_write_buffer_limits()} set={tr.get_protocol() is q}', 'proto')
    def close(tr, b): tr.close()
    def abort(tr, b): tr.abort()
    def peers_eof(tr, b): b.shutdown(socket.SHUT_WR)
    def half_close(tr, b): tr.write_eof(); tr.close()
    for name, end, length in (
        ('close', close, 0), ('close, sent', close, 10), ('close, flushed', close, 1 << 20),
        ('write_eof and close', half_close, 0), ('write_eof and close, flushed', half_close, 1 << 20),
        ('abort', abort, 0), ('abort, full', abort, 1 << 20),
        ('eof', peers_eof, 0), ('eof, flushed', peers_eof, 1 << 20),
    ):
        t.log(name, 'proto'); a, b = pair(); tr, p = await attach(t, a, lost=lost)
        if length: tr.write(bytes(length))
        end(tr, b); await turn(4); got, end = await drain_all(b); await p.lost; whole = len(got) >= length
        t.log(f'peer: {got[length:]} whole={whole} {end}', 'proto'); t.log(f'closing={tr.is_closing()} size={tr.get_write_buffer_size()} protocol={tr.get_protocol()}', 'proto'); b.close()
    for kept in ('flushed', 'sent'):
        t.log(f'kept open, {kept}', 'proto'); a, b = pair(); tr, p = await attach(t, a, keep_open=True, lost=lost); b.shutdown(socket.SHUT_WR); await turn(4)
        tr.write(bytes(1 << 20 if kept == 'flushed' else 10)); tr.close(); got, end = await drain_all(b); await p.lost; t.log(f'peer: {got.lstrip(bytes(1))} {end}', 'proto'); b.close()
    t.log('reset', 'proto'); a, b = tcp_pair(); tr, p = await attach(t, a, lost=lost); await turn(2); reset(b); await p.lost
    t.log('gone while full', 'proto'); a, b = pair(); tr, p = await attach(t, a, lost=lost); tr.pause_reading(); tr.write(bytes(1 << 20)); await turn(2); b.close(); await p.lost


# More than fits, written inside connection_lost after a flush: pause_writing comes inside write; what fits is sent.
@scenario('T43')
async def _(t):
    def lost(p): p.transport.write(bytes(1 << 20)); t.log(f'buffered={p.transport.get_write_buffer_size() > 0}', 'proto')
    a, b = pair(); tr, p = await attach(t, a, lost=lost); tr.write(bytes(1 << 20)); tr.close(); got, end = await drain_all(b); await p.lost
    t.log(f'some={1 << 20 < len(got) < 2 << 20} {end}', 'proto')


# writelines sends though something is buffered; where that makes room, resume_writing comes inside.
@scenario('T44')
async def _(t):
    a, b = pair(); tr, p = await attach(t, a); tr.write(bytes(300000)); t.log(f'buffered={tr.get_write_buffer_size() > 0}', 'proto')
    tr.writelines([b'x']); t.log('still full', 'proto'); drain(b); tr.writelines([b'y', b'z']); t.log(f'size={tr.get_write_buffer_size()}', 'proto')
    await turn(4); got, end = drain(b); t.log(f'{got[-3:]} {end}', 'proto'); tr.write(bytes(300000)); drain(b); tr.writelines([bytes(300000)]); t.log('full again', 'proto')
    drain(b); await settle(); t.log(f'size={tr.get_write_buffer_size()}', 'proto'); tr.close(); await p.lost; b.close()


# The peer has gone, and a write comes before the read event: a broken pipe, and no end is told. With no write, or behind the
# read event, it is what the read event says.
@scenario('T45')
async def _(t):
    for unread in (True, False):
        for name, write in (('nothing', lambda tr: None), ('write', lambda tr: tr.write(b'x')), ('writelines', lambda tr: tr.writelines([b'x', b'y']))):
            for turns in (0, 1):
                t.log(f'{name}, unread={unread} turns={turns}', 'proto'); a, b = pair(); tr, p = await attach(t, a); await turn(2)
                if unread: tr.write(b'unread'); await turn(2)
                b.close(); await turn(turns); write(tr); await p.lost
    for name, write in (('nothing', lambda tr: None), ('write', lambda tr: tr.write(b'x')), ('writelines', lambda tr: tr.writelines([b'x', b'y']))):
        for turns in (0, 1):
            t.log(f'{name}, full turns={turns}', 'proto'); a, b = pair(); tr, p = await attach(t, a); tr.write(bytes(1 << 20)); await turn(2); b.close(); await turn(turns); write(tr); await p.lost
    for turns in (0, 1):
        t.log(f'reset turns={turns}', 'proto'); a, b = tcp_pair(); tr, p = await attach(t, a); await turn(2); reset(b); await turn(turns); tr.write(b'x'); await p.lost


# A buffered protocol is asked for a buffer before the receive that finds an error, too; if it has none, that is the error.
@scenario('T46')
async def _(t):
    log_reports(t)
    class B(asyncio.BufferedProtocol):
        def __init__(self, buffer): self.buffer = buffer; self.lost = asyncio.get_running_loop().create_future()
        def get_buffer(self, hint): t.log(f'get_buffer({hint})', 'proto'); return self.buffer
        def connection_lost(self, error): t.log(f'connection_lost({kind(error)})', 'proto'); self.lost.set_result(None)
    for make in (tcp_pair, pair):
        for length in (4, 0):
            a, b = make(); tr, p = await asyncio.get_running_loop().create_connection(lambda: B(bytearray(length)), sock=a)
            if make is tcp_pair: reset(b)
            else: tr.write(b'unread'); await turn(2); b.close()
            await p.lost


# A buffered protocol fills one buffer in each iteration, however much is waiting.
@scenario('T47')
async def _(t):
    class B(asyncio.BufferedProtocol):
        def __init__(self): self.buffer = bytearray(4)
        def get_buffer(self, hint): return self.buffer
        def buffer_updated(self, n): t.log(f'filled {bytes(self.buffer[:n])}', 'proto')
        def connection_lost(self, error): t.log(f'connection_lost({kind(error)})', 'proto')
    a, b = pair(); await asyncio.get_running_loop().create_connection(B, sock=a); b.send(b'abcdefghij'); b.close()
    for i in range(8): await turn(); t.log(f'turn {i}', 'proto')


# Data and a reset are waiting: a write that comes before the read event meets the reset, and the data are not delivered.
@scenario('T48')
async def _(t):
    for writes in (False, True):
        t.log(f'writes={writes}', 'proto'); a, b = tcp_pair(); tr, p = await attach(t, a); await turn(2); b.send(b'abc'); reset(b)
        if writes: tr.write(b'x')
        await p.lost


# Two transports of one busy loop: what one writes reaches the other in the next iteration.
@scenario('T49')
async def _(t):
    a, b = pair(); ta, pa = await attach(t, a, lane='main', data=lambda p, d: len(d) < 5 and p.transport.write(d + b'a')); tb, pb = await attach(t, b, lane='main', data=lambda p, d: p.transport.write(d + b'b'))
    await turn(2); ta.write(b'x')
    for i in range(8): t.log(f'turn {i}'); await turn()
    ta.abort(); tb.abort(); await pa.lost; await pb.lost


# What was queued before one accept event: factories in order, connection_made of each later.
@scenario('V02')
async def _(t):
    made = []
    def factory(): made.append(P(t, lane='srv', made=lambda p: t.log(f'index {made.index(p)}', 'srv'))); t.log(f'factory {len(made) - 1}', 'srv'); return made[-1]
    srv = await asyncio.get_running_loop().create_server(factory, '127.0.0.1', 0); cs = [client(srv) for _ in range(5)]; await settle()
    t.log(f'in order={[p.transport.get_extra_info("peername") for p in made] == [c.getsockname() for c in cs]}', 'srv')
    srv.close(); [p.transport.abort() for p in made]; await srv.wait_closed(); [c.close() for c in cs]; t.log('closed', 'srv')


# close() ends serve_forever.
@scenario('V08')
async def _(t):
    srv, made = await echo_server(t); k = asyncio.create_task(srv.serve_forever()); await turn(2); srv.close()
    try: await k
    except asyncio.CancelledError: t.log(f'CancelledError serving={srv.is_serving()}')


# close_clients flushes, abort_clients does not; both work on a server that goes on, and on a closed one.
@scenario('V09', 'lane')
async def _(t):
    srv, made = await echo_server(t); c = client(srv); await settle(); made[0].transport.write(b'bye'); srv.close_clients(); await made[0].lost; t.log(f'peer={drain(c)} serving={srv.is_serving()}'); c.close()
    c = client(srv); await settle(); made[1].transport.write(bytes(8 << 20)); srv.close(); srv.abort_clients(); await made[1].lost; got, end = await drain_all(c); t.log(f'all={len(got) == 8 << 20}'); c.close(); await srv.wait_closed(); t.log('closed')


# Out of descriptors: one report, a pause of a second, then the connection is accepted.
@scenario('V13', 'lane')
async def _(t):
    log_reports(t); soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE); resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard)); srv, made = await echo_server(t, backlog=1); c = socket.socket(); c.setblocking(False); held = []
    try:
        while True: held.append(os.open('/dev/null', os.O_RDONLY))
    except OSError: pass
    try: c.connect(srv.sockets[0].getsockname())
    except BlockingIOError: pass
    await settle(); [os.close(fd) for fd in held]; resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)); t.log(f'accepted={len(made)} serving={srv.is_serving()}'); c.send(b'hi')
    while not made: await asyncio.sleep(.05)
    await settle(); t.log(f'peer={drain(c)}'); c.close(); await made[0].lost; srv.close()


# A client that sends and goes before it is accepted is still heard.
@scenario('V14')
async def _(t):
    srv, made = await echo_server(t); c = client(srv); c.send(b'hello'); c.shutdown(socket.SHUT_WR); await settle(); t.log(f'peer={drain(c)}', 'srv0'); c.close()
    srv.close(); await srv.wait_closed(); t.log('closed', 'srv0')


# A cancelled serve_forever that still waits for a client is awaited; one that close() has ended is not, and the server is closed.
@scenario('V18')
async def _(t):
    async def forever(srv):
        try: await srv.serve_forever()
        except RuntimeError as e: return 'already awaited' if 'already being awaited' in str(e) else 'closed' if 'is closed' in str(e) else str(e)
    for cancel in (True, False):
        srv, made = await echo_server(t); k = asyncio.create_task(forever(srv)); c = client(srv); await settle()
        if cancel: k.cancel()
        else: srv.close()
        await turn(3); t.log(f'done={k.done()} serving={srv.is_serving()}'); t.log(await forever(srv)); c.close(); await made[0].lost
        try: await k
        except asyncio.CancelledError: t.log('CancelledError')
        t.log(await forever(srv))


def refused():
    l = socket.socket(); l.bind(('127.0.0.1', 0)); port = l.getsockname()[1]; l.close(); return port


def resolve(loop, addresses):
    async def getaddrinfo(*args, **kw): return [(socket.AF_INET6 if ':' in h else socket.AF_INET, socket.SOCK_STREAM, 6, '', (h, port, 0, 0) if ':' in h else (h, port)) for h, port in addresses]
    loop.getaddrinfo = getaddrinfo


# All addresses fail: the error, or several; no address at all.
@scenario('C02')
async def _(t):
    loop = asyncio.get_running_loop(); port = refused()
    for addresses, kw in (([('127.0.0.1', port)] * 2, {}), ([('127.0.0.1', port), ('127.0.0.2', port)], {}), ([('127.0.0.1', port), ('127.0.0.2', port)], dict(all_errors=True)), ([], {})):
        resolve(loop, addresses)
        try: await loop.create_connection(lambda: P(t), 'name', port, **kw)
        except ExceptionGroup as e: t.log(f'{e.message}: ' + ', '.join(kind(x) + ' ' + str(x).replace(str(port), 'PORT') for x in e.exceptions))
        except OSError as e: t.log(f'{kind(e)} {str(e).replace(str(port), "PORT")}')


# Interleaved addresses, seen in the order of the errors.
@scenario('C05')
async def _(t):
    loop = asyncio.get_running_loop(); port = refused(); resolve(loop, [('127.0.0.1', port), ('127.0.0.2', port), ('127.0.0.3', port), ('::1', port), ('::1', port)])
    for kw in ({}, dict(interleave=0), dict(interleave=1), dict(interleave=2), dict(happy_eyeballs_delay=10)):
        try: await loop.create_connection(lambda: P(t), 'name', port, all_errors=True, **kw)
        except ExceptionGroup as e: t.log(', '.join(str(x).split("'")[1] for x in e.exceptions))


# Where ringloop follows a fix that CPython 3.13.0 lacks.
EXPECTED = {}


def run(f):
    t = Trace()
    if asyncio.iscoroutinefunction(f): asyncio.run(f(t))
    else: f(t)
    return t.lines


def main():
    logging.getLogger('asyncio').propagate = False
    logging.getLogger('asyncio').addHandler(logging.NullHandler())
    wanted = sys.argv[1:]
    if wanted[:1] == ['--json']:
        traces = {id: {'order': order, 'trace': EXPECTED.get(id) or run(f)} for id, order, f in SCENARIOS}
        with open(wanted[1], 'w') as file: json.dump(traces, file, indent=1); file.write('\n')
        return
    for id, order, f in SCENARIOS:
        if not wanted or id in wanted: print(f'## {id} ({order})', *run(f), sep='\n  ')


if __name__ == '__main__':
    main()
