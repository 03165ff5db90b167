//! Values that act when they are dropped, cloned, shown or asked, and that panic over it.

use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, panic_any, set_hook, take_hook};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;
use std::thread;

use bytes::Bytes;
use ringloop_driver::discard_panic;
use ringloop_tests::bomb::Endless;

use crate::acts::act;
use crate::world::World;

/// Acts when it is dropped, and panics now and then.
pub(crate) struct Owner {
    world: Rc<World>,
    number: u64,
}

impl Owner {
    #[track_caller]
    pub(crate) fn new(world: &Rc<World>) -> Self {
        let number = world.made.replace(world.made.get() + 1);
        world.owners.borrow_mut().insert(number, Location::caller());
        Self { world: Rc::clone(world), number }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.world.owners.borrow_mut().remove(&self.number);
        user_code(6, 3);
    }
}

/// Bytes of any length whose owner acts.
pub(crate) struct OwnedBytes {
    bytes: Vec<u8>,
    _bomb: SendBomb,
}

impl OwnedBytes {
    pub(crate) fn bytes(len: usize) -> Bytes {
        Bytes::from_owner(Self { bytes: vec![b'o'; len], _bomb: SendBomb })
    }
}

impl AsRef<[u8]> for OwnedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// For any thread; acts where there is a world.
#[derive(Debug)]
pub(crate) struct SendBomb;

impl Drop for SendBomb {
    fn drop(&mut self) {
        user_code(4, 4);
    }
}

/// What futures and tasks give.
pub(crate) struct Value(pub(crate) Owner);

impl Clone for Value {
    fn clone(&self) -> Self {
        user_code(4, 6);
        Self(Owner::new(&self.0.world))
    }
}

/// An error that is shown.
#[derive(Debug)]
pub(crate) struct Rude(pub(crate) SendBomb);

impl fmt::Display for Rude {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        user_code(8, 6);
        f.write_str("planned")
    }
}

impl std::error::Error for Rude {}

/// Acts and panics in each of its calls.
pub(crate) struct RudeWaker(pub(crate) SendBomb);

impl Wake for RudeWaker {
    fn wake(self: Arc<Self>) {
        user_code(3, 4);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        user_code(3, 4);
    }
}

/// The user's code, in which there is an act once in so many times, and a panic.
pub(crate) fn user_code(acts: usize, panics: usize) {
    if thread::panicking() {
        // Out of a drop that an unwinding has called no panic may come: that is Rust's rule, and not the library's.
        guarded(|| act_now_and_then(acts));
    } else {
        act_now_and_then(acts);
        panic_once_in(panics);
    }
}

fn act_now_and_then(times: usize) {
    if let Some(world) = World::current() {
        if world.once_in(times) {
            act(&world);
        }
    }
}

/// What panics in here is the program's own.
pub(crate) fn guarded(call: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
        discard_panic(payload);
    }
}

/// Panics as planned, once in so many times.
pub(crate) fn panic_once_in(times: usize) {
    let number = match World::current() {
        Some(world) if world.budget.get() > 0 && world.once_in(times) => world.below(16),
        Some(_) => return,
        // On another thread: in turns.
        None if ELSEWHERE.fetch_add(1, Ordering::Relaxed) % 3 == 0 => 1,
        None => return,
    };
    match number {
        0 => panic_any(Endless),
        1 => panic_any(String::from(PLANNED)),
        _ => panic_any(PLANNED),
    }
}

/// From now on planned panics are silent, and others are noted.
pub(crate) fn watch_panics() {
    let usual = take_hook();
    set_hook(Box::new(move |info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref().copied());
        if text == Some(PLANNED) || payload.is::<Endless>() {
            PANICS.fetch_add(1, Ordering::Relaxed);
        } else {
            let text = format!("{} at {:?}", text.unwrap_or("a panic"), info.location());
            UNPLANNED.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            usual(info);
        }
    }));
}

/// How many panics were planned so far.
pub(crate) fn planned_panics() -> u32 {
    PANICS.load(Ordering::Relaxed)
}

/// The panics that nobody planned, on any thread.
pub(crate) fn unplanned_panics() -> Vec<String> {
    std::mem::take(&mut UNPLANNED.lock().unwrap_or_else(PoisonError::into_inner))
}

static UNPLANNED: Mutex<Vec<String>> = Mutex::new(Vec::new());
static PANICS: AtomicU32 = AtomicU32::new(0);
static ELSEWHERE: AtomicU32 = AtomicU32::new(0);
const PLANNED: &str = "planned";
