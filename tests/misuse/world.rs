//! What a program has in its hands, and what it has seen so far.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::panic::Location;
use std::rc::Rc;
use std::task::Waker;

use ringloop::{
    AsyncFd, Condition, DoneCallback, Event, EventLoop, Handle, Job, Lock, LoopFuture, LoopRef,
    Queue, Received, RemoteTask, Semaphore, Server, Task, TimerHandle, Transport,
};
use ringloop_tests::seeds::Random;
use socket2::Socket;

use crate::sockets::Waiting;
use crate::values::{Owner, SendBomb, Value, guarded};

/// Everything that the program of this thread may use.
pub(crate) struct World {
    random: RefCell<Random>,
    event_loop: RefCell<Option<LoopRef>>,
    /// Acts that are left.
    pub(crate) budget: Cell<usize>,
    pub(crate) acts: Cell<usize>,
    /// Acts inside of each other.
    pub(crate) depth: Cell<usize>,
    /// Whether it may leave leases for ever.
    pub(crate) forgets: bool,
    pub(crate) forgotten: Cell<u64>,
    /// Where each value of the program's that is alive was made.
    pub(crate) owners: RefCell<BTreeMap<u64, &'static Location<'static>>>,
    pub(crate) made: Cell<u64>,
    pub(crate) connections: RefCell<BTreeMap<u64, Connection>>,
    pub(crate) wrong: RefCell<Vec<String>>,
    /// Those that have not heard of their end.
    pub(crate) open: RefCell<BTreeMap<u64, Transport>>,
    pub(crate) meeting: Meeting,
    pub(crate) transports: Bag<Transport>,
    pub(crate) peers: Bag<Socket>,
    /// All of them: one that listens lives without a handle.
    pub(crate) listening: RefCell<Vec<Server>>,
    pub(crate) servers: Bag<Server>,
    pub(crate) leases: Bag<Received>,
    pub(crate) handles: Bag<Handle>,
    pub(crate) timers: Bag<TimerHandle>,
    pub(crate) tasks: Bag<Task<Value>>,
    pub(crate) futures: Bag<LoopFuture<Value>>,
    pub(crate) callbacks: Bag<DoneCallback<Value>>,
    pub(crate) jobs: Bag<Job<SendBomb>>,
    pub(crate) remotes: Bag<RemoteTask<SendBomb>>,
    pub(crate) wakers: Bag<Waker>,
    pub(crate) watched: Bag<Rc<(UnixStream, UnixStream)>>,
    pub(crate) async_fds: Bag<Rc<AsyncFd<UnixStream>>>,
    pub(crate) sockets: Bag<Rc<ringloop::Socket>>,
    pub(crate) waiting: Bag<Waiting>,
}

/// Where tasks meet.
pub(crate) struct Meeting {
    pub(crate) lock: Lock<Option<Value>>,
    pub(crate) queue: Queue<Value>,
    pub(crate) event: Event,
    pub(crate) semaphore: Semaphore,
    pub(crate) condition: Condition,
}

impl Default for Meeting {
    fn default() -> Self {
        Self {
            lock: Lock::new(None),
            queue: Queue::bounded(2),
            event: Event::new(),
            semaphore: Semaphore::new(1),
            condition: Condition::new(),
        }
    }
}

/// What protocols have heard of one connection.
#[derive(Default)]
pub(crate) struct Connection {
    pub(crate) made: u32,
    pub(crate) lost: u32,
    /// Inside of `connection_lost()`.
    pub(crate) is_losing: bool,
}

impl World {
    pub(crate) fn new(mut random: Random) -> Rc<Self> {
        let forgets = random.once_in(8);
        Rc::new(Self {
            random: RefCell::new(random),
            event_loop: RefCell::default(),
            budget: Cell::new(0),
            acts: Cell::new(0),
            depth: Cell::new(0),
            forgets,
            forgotten: Cell::new(0),
            owners: RefCell::default(),
            made: Cell::new(0),
            connections: RefCell::default(),
            wrong: RefCell::default(),
            open: RefCell::default(),
            meeting: Meeting::default(),
            transports: Bag::default(),
            peers: Bag::default(),
            listening: RefCell::default(),
            servers: Bag::default(),
            leases: Bag::default(),
            handles: Bag::default(),
            timers: Bag::default(),
            tasks: Bag::default(),
            futures: Bag::default(),
            callbacks: Bag::default(),
            jobs: Bag::default(),
            remotes: Bag::default(),
            wakers: Bag::default(),
            watched: Bag::default(),
            async_fds: Bag::default(),
            sockets: Bag::default(),
            waiting: Bag::default(),
        })
    }

    /// That of this thread; `None` on the threads of executors, and when the program is over.
    pub(crate) fn current() -> Option<Rc<Self>> {
        WORLD.try_with(|world| world.borrow().clone()).ok().flatten()
    }

    pub(crate) fn set_current(world: Option<Rc<Self>>) {
        drop(WORLD.replace(world));
    }

    pub(crate) fn set_event_loop(&self, event_loop: &EventLoop) {
        self.event_loop.replace(Some(event_loop.downgrade()));
    }

    pub(crate) fn event_loop(&self) -> Option<EventLoop> {
        self.event_loop.borrow().as_ref()?.upgrade()
    }

    pub(crate) fn below(&self, end: usize) -> usize {
        self.random.borrow_mut().below(end)
    }

    pub(crate) fn once_in(&self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn wrong(&self, what: impl Into<String>) {
        self.wrong.borrow_mut().push(what.into());
    }

    /// Notes what a protocol hears of the connection with this number.
    pub(crate) fn with_connection<R>(&self, id: u64, note: impl FnOnce(&mut Connection) -> R) -> R {
        note(self.connections.borrow_mut().entry(id).or_default())
    }

    pub(crate) fn serves(&self, server: Server) {
        self.listening.borrow_mut().push(server.clone());
        self.servers.put(server);
    }

    /// Lets everything go but servers that listen. What goes may act, so it may take several turns.
    pub(crate) fn clear(&self) {
        while let Ok(item) = self.meeting.queue.get_nowait() {
            guarded(|| drop(item));
        }
        let locked = self.meeting.lock.try_acquire().and_then(|mut guard| guard.take());
        guarded(|| drop(locked));
        self.transports.clear();
        let open = self.open.take();
        drop(open);
        self.peers.clear();
        self.servers.clear();
        self.leases.clear();
        self.handles.clear();
        self.timers.clear();
        self.tasks.clear();
        self.futures.clear();
        self.callbacks.clear();
        self.jobs.clear();
        self.remotes.clear();
        self.wakers.clear();
        self.watched.clear();
        self.async_fds.clear();
        self.waiting.clear();
        self.sockets.clear();
    }

    #[track_caller]
    pub(crate) fn owner(self: &Rc<Self>) -> Owner {
        Owner::new(self)
    }
}

/// Things of one kind, of which any may go at any moment.
pub(crate) struct Bag<T>(RefCell<Vec<T>>);

impl<T> Default for Bag<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> Bag<T> {
    /// Adds one; one of many goes.
    pub(crate) fn put(&self, item: T) {
        let old = {
            let mut items = self.0.borrow_mut();
            items.push(item);
            (items.len() > MOST).then(|| items.remove(0))
        };
        drop(old);
    }

    pub(crate) fn take(&self, world: &World) -> Option<T> {
        let len = self.len();
        if len == 0 {
            return None;
        }
        let at = world.below(len);
        Some(self.0.borrow_mut().swap_remove(at))
    }

    pub(crate) fn any(&self, world: &World) -> Option<T>
    where
        T: Clone,
    {
        let len = self.len();
        if len == 0 {
            return None;
        }
        let at = world.below(len);
        Some(self.0.borrow()[at].clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    pub(crate) fn all(&self) -> Vec<T>
    where
        T: Clone,
    {
        self.0.borrow().clone()
    }

    fn clear(&self) {
        loop {
            let item = self.0.borrow_mut().pop();
            let Some(item) = item else { return };
            guarded(|| drop(item));
        }
    }
}

thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// Of one kind.
const MOST: usize = 10;
