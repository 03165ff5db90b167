//! What tasks meet at: events, locks, semaphores, conditions, barriers, queues. Orders are those of `tests/traces/meeting.json`;
//! here stands what is ours.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use ringloop::{
    Barrier, BoundedSemaphore, Condition, Error, Event, GetNowaitError, LifoQueue, Lock,
    PriorityQueue, PutError, PutNowaitError, Queue, QueueShutDown, Semaphore, catch_cancel,
    current_task, gather, spawn, yield_now,
};

use super::{Log, LogDrop, ended};

/// Lets everything happen that can.
async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

// spec: SYNC-01
#[test]
fn a_lock_goes_to_the_next_when_the_one_that_got_it_is_cancelled() {
    ringloop::run(async {
        let (lock, log) = (Rc::new(Lock::new(0)), Log::default());
        let guard = lock.acquire().await;
        let tasks = ["first", "second"].map(|name| {
            let (lock, log) = (Rc::clone(&lock), log.clone());
            spawn(async move {
                *lock.acquire().await += 1;
                log.add(name);
            })
        });
        settle().await;
        drop(guard); // The first is woken, and has not gone on yet.
        assert!(lock.try_acquire().is_none(), "who comes now stands behind those who wait");
        tasks[0].cancel();
        settle().await;
        assert_eq!(log.take(), ["second"]);
        assert_eq!(*lock.try_acquire().unwrap(), 1);
        assert_eq!(format!("{lock:?}"), "<Lock [unlocked, waiters:0]>");
    })
    .unwrap();
}

// spec: SYNC-01
#[test]
fn a_wait_whose_request_was_taken_back_goes_on() {
    ringloop::run(async {
        let event = Rc::new(Event::new());
        let waits = Rc::clone(&event);
        let task = spawn(async move { waits.wait().await });
        yield_now().await;
        task.cancel();
        assert_eq!(task.task_ref().uncancel(), 0);
        settle().await;
        assert!(!task.done());
        event.set();
        event.clear();
        task.await.unwrap();
    })
    .unwrap();
}

// spec: SYNC-01
#[test]
fn locks_need_no_loop_where_nobody_waits() {
    let lock = Lock::new(1);
    *ended(lock.acquire()) += 1;
    assert_eq!(lock.into_inner(), 2);
    let semaphore = Semaphore::new(1);
    let permit = ended(semaphore.acquire());
    assert!(semaphore.locked() && semaphore.try_acquire().is_none());
    drop(permit);
    assert!(!semaphore.locked());
    let queue = Queue::new();
    ended(queue.put(1)).unwrap();
    assert_eq!(ended(queue.get()), Ok(1));
}

// spec: SYNC-01
#[test]
fn a_permit_that_was_given_to_one_that_is_cancelled_goes_to_the_next() {
    ringloop::run(async {
        let (semaphore, count) = (Rc::new(Semaphore::new(1)), Rc::new(Cell::new(0)));
        let permit = semaphore.acquire().await;
        let tasks = [(); 3].map(|()| {
            let (semaphore, count) = (Rc::clone(&semaphore), Rc::clone(&count));
            spawn(async move {
                let _permit = semaphore.acquire().await;
                count.set(count.get() + 1);
            })
        });
        settle().await;
        drop(permit);
        tasks[0].cancel();
        settle().await;
        assert_eq!(count.get(), 2);
        semaphore.acquire().await.forget();
        assert!(semaphore.locked());
        semaphore.release();
        assert!(!semaphore.locked());
    })
    .unwrap();
}

// spec: SYNC-01
#[test]
fn a_bounded_semaphore_takes_no_permit_back_that_it_did_not_give() {
    let semaphore = BoundedSemaphore::new(2);
    let error = semaphore.release().unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)));
    let permit = semaphore.try_acquire().unwrap();
    semaphore.release().unwrap();
    drop(permit); // It is over the bound, and lost.
    let _all = [semaphore.try_acquire().unwrap(), semaphore.try_acquire().unwrap()];
    assert!(semaphore.locked());
}

// spec: SYNC-01
#[test]
fn a_notification_that_came_to_one_that_is_cancelled_goes_to_the_next() {
    ringloop::run(async {
        let shared = Rc::new((Lock::new(()), Condition::new()));
        let tasks = [(); 2].map(|()| {
            let shared = Rc::clone(&shared);
            spawn(async move {
                let guard = shared.0.acquire().await;
                drop(shared.1.wait(guard).await);
            })
        });
        settle().await;
        shared.1.notify(1);
        tasks[0].cancel();
        settle().await;
        assert!(tasks[0].cancelled() && tasks[1].done() && !tasks[1].cancelled());
        assert!(!shared.0.locked(), "one that was cancelled does not have the lock");
    })
    .unwrap();
}

// spec: SYNC-01
#[test]
fn a_barrier_counts_who_waits_and_no_other() {
    ringloop::run(async {
        assert!(matches!(Barrier::new(0), Err(Error::InvalidArgument(_))));
        let barrier = Rc::new(Barrier::new(2).unwrap());
        let party = || {
            let barrier = Rc::clone(&barrier);
            async move { barrier.wait().await }
        };
        let leaves = spawn(party());
        yield_now().await;
        assert_eq!((barrier.n_waiting(), barrier.parties()), (1, 2));
        leaves.cancel();
        settle().await;
        assert_eq!(barrier.n_waiting(), 0);
        assert_eq!(gather([party(), party()]).try_values().await.unwrap(), [0, 1]);
        let waits = spawn(party());
        yield_now().await;
        barrier.abort();
        let error = waits.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "Abort or reset of barrier");
        assert!(barrier.broken());
        assert_eq!(party().await.unwrap_err().to_string(), "Barrier aborted");
        barrier.reset();
        assert_eq!(gather([party(), party()]).try_values().await.unwrap(), [0, 1]);
    })
    .unwrap();
}

// spec: SYNC-02
#[test]
fn a_getter_that_is_cancelled_takes_no_item_and_a_putter_puts_none() {
    ringloop::run(async {
        let queue = Rc::new(Queue::bounded(1));
        let get = || {
            let queue = Rc::clone(&queue);
            spawn(async move { queue.get().await })
        };
        let put = |item| {
            let queue = Rc::clone(&queue);
            spawn(async move { queue.put(item).await })
        };
        let getters = [get(), get()];
        yield_now().await;
        queue.put_nowait("item").unwrap();
        getters[0].cancel(); // It is woken, and has not gone on yet.
        let [_, second] = getters;
        assert_eq!(second.await.unwrap(), Ok("item"));
        queue.put_nowait("first").unwrap();
        let putters = [put("second"), put("third")];
        yield_now().await;
        assert_eq!(queue.get_nowait(), Ok("first"));
        putters[0].cancel();
        settle().await;
        assert_eq!(queue.get_nowait(), Ok("third"));
        assert!(queue.is_empty() && format!("{queue:?}").contains("getters=0 putters=0"));
    })
    .unwrap();
}

// spec: SYNC-02
#[test]
fn a_queue_that_is_shut_down_gives_what_it_has_and_takes_nothing() {
    ringloop::run(async {
        let queue = Rc::new(Queue::bounded(2));
        queue.put_nowait(1).unwrap();
        queue.put_nowait(2).unwrap();
        assert_eq!(queue.put_nowait(3), Err(PutNowaitError::Full(3)));
        let (puts, joins) = (Rc::clone(&queue), Rc::clone(&queue));
        let putter = spawn(async move { puts.put(3).await });
        let join = spawn(async move { joins.join().await });
        yield_now().await;
        queue.shutdown(false);
        assert_eq!(putter.await.unwrap(), Err(PutError(3)));
        assert_eq!(queue.put(4).await, Err(PutError(4)));
        assert_eq!(queue.get().await, Ok(1));
        queue.task_done().unwrap();
        settle().await;
        assert!(!join.done(), "one item is not done with");
        queue.shutdown(true);
        join.await.unwrap();
        assert_eq!(queue.get().await, Err(QueueShutDown));
        assert_eq!(queue.get_nowait(), Err(GetNowaitError::ShutDown));
        let error = queue.task_done().unwrap_err();
        assert_eq!(error.to_string(), "task_done() called too many times");
    })
    .unwrap();
}

/// An item with a rank, by which alone it is compared.
#[derive(Debug, PartialEq, Eq)]
struct Item<T>(u32, T);

impl<T: Eq> Ord for Item<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl<T: Eq> PartialOrd for Item<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

// spec: SYNC-02
#[test]
fn the_smallest_goes_first_or_the_last_and_equal_ones_as_they_came() {
    let (smallest, last) = (PriorityQueue::new(), LifoQueue::bounded(3));
    for (rank, text) in [(2, "a"), (1, "b"), (2, "c"), (1, "d")] {
        smallest.put_nowait(Item(rank, text)).unwrap();
        let _ = last.put_nowait(text);
    }
    let order = std::iter::from_fn(|| smallest.get_nowait().ok()).map(|item| item.1);
    assert_eq!(order.collect::<Vec<_>>(), ["b", "d", "a", "c"]);
    assert_eq!(std::iter::from_fn(|| last.get_nowait().ok()).collect::<Vec<_>>(), ["c", "b", "a"]);
    assert_eq!((last.limit(), smallest.limit()), (Some(3), None));
}

// spec: SYNC-02
#[test]
fn a_thousand_items_come_out_in_their_order_and_equal_ones_as_they_came() {
    let queue = PriorityQueue::new();
    let mut model: Vec<(u32, usize)> = Vec::new();
    let mut random: u64 = 1;
    for number in 0..1000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let rank = (random >> 59) as u32;
        queue.put_nowait(Item(rank, number)).unwrap();
        model.push((rank, number));
        if random >> 32 & 3 == 0 {
            model.sort();
            let first = queue.get_nowait().unwrap();
            assert_eq!((first.0, first.1), model.remove(0));
        }
    }
    model.sort();
    let rest = std::iter::from_fn(|| queue.get_nowait().ok());
    assert!(rest.map(|item| (item.0, item.1)).eq(model));
}

/// What is called whenever two items are compared; a clone is the same.
#[derive(Clone, Default)]
struct Hook(Rc<RefCell<Option<HookFn>>>);

type HookFn = Box<dyn FnMut()>;

impl Hook {
    fn set(&self, call: impl FnMut() + 'static) {
        *self.0.borrow_mut() = Some(Box::new(call));
    }

    fn clear(&self) {
        *self.0.borrow_mut() = None;
    }

    /// Not borrowed while it runs: a comparison inside of it calls nothing.
    fn call(&self) {
        let taken = self.0.take();
        if let Some(mut call) = taken {
            call();
            self.0.replace(Some(call));
        }
    }
}

struct Hooked(u32, Hook);

impl Ord for Hooked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.1.call();
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Hooked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Hooked {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Hooked {}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A queue of items that call the hook, and a way to make more of them.
fn hooked(numbers: &[u32]) -> (Rc<PriorityQueue<Hooked>>, Hook, impl Fn(u32) -> Hooked) {
    let (queue, hook) = (Rc::new(PriorityQueue::new()), Hook::default());
    let of_items = hook.clone();
    let item = move |number| Hooked(number, of_items.clone());
    for &number in numbers {
        queue.put_nowait(item(number)).unwrap();
    }
    (queue, hook, item)
}

fn numbers_of(queue: &PriorityQueue<Hooked>) -> Vec<u32> {
    std::iter::from_fn(|| queue.get_nowait().ok()).map(|item| item.0).collect()
}

// spec: SYNC-02
#[test]
fn a_comparison_that_panics_changes_nothing_in_a_queue() {
    let (queue, hook, item) = hooked(&[5, 3, 8, 1, 9, 2, 7]);
    // After so many comparisons that go well.
    for good in 0..4 {
        for taking in [false, true] {
            let mut left = good;
            hook.set(move || {
                assert!(left > 0, "not comparable");
                left -= 1;
            });
            let (queue, item) = (&queue, &item);
            let result = catch_unwind(AssertUnwindSafe(|| match taking {
                true => drop(queue.get_nowait()),
                false => drop(queue.put_nowait(item(0))),
            }));
            hook.clear();
            if result.is_ok() && taking {
                queue.put_nowait(item(1)).unwrap();
            } else if result.is_ok() {
                assert_eq!(queue.get_nowait().unwrap().0, 0);
            }
            assert_eq!(queue.len(), 7);
        }
    }
    assert_eq!(numbers_of(&queue), [1, 2, 3, 5, 7, 8, 9]);
}

// spec: SYNC-02
#[test]
fn a_comparison_that_uses_its_queue_is_told_that_there_is_no_item_and_no_room() {
    let (queue, hook, item) = hooked(&[2, 1, 3]);
    let seen = Rc::new(Cell::new(0));
    let (inside, count, more) = (Rc::downgrade(&queue), Rc::clone(&seen), item(7));
    let mut more = Some(more);
    hook.set(move || {
        let queue = inside.upgrade().unwrap();
        assert!(matches!(queue.get_nowait(), Err(GetNowaitError::Empty)) && queue.len() == 3);
        let refused = queue.put_nowait(more.take().unwrap()).unwrap_err();
        assert!(matches!(refused, PutNowaitError::Full(_)));
        more = Some(refused.into_item());
        // A future that is polled in here is woken at once, so that it tries again.
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut get = pin!(queue.get());
        assert!(get.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(woken.0.swap(false, Ordering::Relaxed));
        let mut put = pin!(queue.put(more.take().unwrap()));
        assert!(put.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(woken.0.load(Ordering::Relaxed));
        more = Some(Hooked(7, Hook::default()));
        count.set(count.get() + 1);
    });
    queue.put_nowait(item(0)).unwrap();
    assert!(seen.get() > 0);
    hook.clear();
    assert_eq!(numbers_of(&queue), [0, 1, 2, 3]);
}

// spec: SYNC-02
#[test]
fn a_queue_that_is_shut_down_by_a_comparison_keeps_nothing() {
    let (queue, hook, item) = hooked(&[2, 1, 3]);
    let inside = Rc::downgrade(&queue);
    hook.set(move || inside.upgrade().unwrap().shutdown(true));
    let refused = queue.put_nowait(item(0)).unwrap_err();
    assert!(matches!(refused, PutNowaitError::ShutDown(Hooked(0, _))));
    assert!(queue.is_empty() && matches!(queue.get_nowait(), Err(GetNowaitError::ShutDown)));
    let mut join = pin!(queue.join());
    assert!(join.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());

    let (queue, hook, _) = hooked(&[2, 1, 3]);
    let inside = Rc::downgrade(&queue);
    hook.set(move || inside.upgrade().unwrap().shutdown(true));
    assert_eq!(queue.get_nowait().unwrap().0, 1);
    assert!(queue.is_empty() && matches!(queue.get_nowait(), Err(GetNowaitError::ShutDown)));
}

// spec: SYNC-02
#[test]
fn items_are_dropped_where_they_may_use_the_queue() {
    struct Bomb(Rc<Queue<Option<Self>>>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(self.0.put_nowait(None).is_err() && self.0.is_empty());
        }
    }
    let queue = Rc::new(Queue::new());
    queue.put_nowait(Some(Bomb(Rc::clone(&queue)))).unwrap();
    queue.shutdown(true);
    assert_eq!(Rc::strong_count(&queue), 1);
}

// spec: SYNC-01
#[test]
fn a_request_to_end_is_for_the_scope_around_the_wait() {
    ringloop::run(async {
        let (lock, log) = (Rc::new(Lock::new(())), Log::default());
        let held = lock.acquire().await;
        let (waits, of_task) = (Rc::clone(&lock), log.clone());
        let task = spawn(async move {
            let _end = LogDrop(of_task.clone(), "ended");
            assert!(catch_cancel(waits.acquire()).await.is_err());
            current_task().unwrap().uncancel();
            of_task.add("caught");
        });
        yield_now().await;
        task.cancel();
        task.await.unwrap();
        assert_eq!(log.take(), ["caught", "ended"]);
        drop(held);
    })
    .unwrap();
}
