//! What users give panics when it is called, or dropped: the loop tells of it, and goes on.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::os::unix::net::UnixStream;
use std::panic::panic_any;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use ringloop::{Error, EventLoop, LoopFuture, ThreadPool, catch_cancel, sleep, timeout};
use ringloop_tests::bomb::{Bomb, Counted, Drops, Endless};

use super::signals::{SIGUSR1, raise, take_turn};
use super::{Log, log_soon, new_loop, turn, watched_loop};

// spec: ERR-07, ERR-08
#[test]
fn a_payload_that_panics_when_it_is_dropped_does_not_end_the_run() {
    let (event_loop, reports) = watched_loop();
    let log = Log::default();
    event_loop.call_soon(|_| panic_any(Endless)).unwrap();
    let task = event_loop.create_task(async { panic_any(Endless) });
    log_soon(&event_loop, &log, "went on");
    turn(&event_loop);
    assert_eq!(reports.take(), ["Exception in callback: a panic"]);
    assert_eq!(log.take(), ["went on"]);
    let ended: Result<(), Error> = event_loop.run_until_complete(task).unwrap();
    assert!(matches!(ended, Err(Error::Panic(text)) if text == "a panic"));
    event_loop.set_exception_handler(|_, _| panic_any(Endless));
    event_loop.call_soon(|_| panic_any(Endless)).unwrap();
    turn(&event_loop);
}

// spec: EXEC-03
#[test]
fn a_pool_of_one_thread_survives_any_payload_and_any_drop() {
    let pool = ThreadPool::new(1);
    let event_loop = EventLoop::builder().default_executor(pool).build().unwrap();
    let reports = super::watch(&event_loop);
    event_loop
        .run_until_complete(async {
            let event_loop = EventLoop::running().unwrap();
            let job = event_loop.run_in_executor(|| panic_any(Endless));
            let ended: Result<(), Error> = job.await;
            assert!(matches!(ended, Err(Error::Panic(text)) if text == "a panic"));
            let bomb = Bomb("captured");
            let job = event_loop.run_in_executor(move || drop(bomb));
            assert!(matches!(job.await, Err(Error::Panic(text)) if text == "captured"));
            // Nobody wants this result.
            drop(event_loop.run_in_executor(|| Bomb("result")));
            assert_eq!(event_loop.run_in_executor(|| 7).await.unwrap(), 7);
            sleep(Duration::ZERO).await;
        })
        .unwrap();
    assert_eq!(event_loop.stats().jobs, 0);
    assert_eq!(reports.take(), ["Exception in the drop of the result of a future: result"]);
}

// spec: EXEC-04
#[test]
fn a_job_that_panics_when_it_is_cancelled_is_forgotten_all_the_same() {
    let pool = ThreadPool::new(1);
    let event_loop = EventLoop::builder().default_executor(pool).build().unwrap();
    let reports = super::watch(&event_loop);
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let first = event_loop.run_in_executor(move || receiver.recv());
    let bomb = Bomb("job");
    let second = event_loop.run_in_executor(move || drop(bomb));
    assert!(second.cancel());
    turn(&event_loop);
    assert_eq!(event_loop.stats().jobs, 1);
    assert_eq!(reports.take(), ["Exception in the drop of a job: job"]);
    drop(sender);
    event_loop.run_until_complete(first).unwrap().unwrap().unwrap_err();
}

// spec: SIGNAL-03
#[test]
fn a_signal_handler_that_panics_when_it_is_dropped_is_removed() {
    let _turn = take_turn();
    let (event_loop, reports) = watched_loop();
    let told = "Exception in the drop of a signal handler: handler";
    let add = || {
        let bomb = Bomb("handler");
        let handler = move |event_loop: &EventLoop| {
            let _ = &bomb;
            assert!(event_loop.remove_signal_handler(SIGUSR1));
            event_loop.stop();
        };
        event_loop.add_signal_handler(SIGUSR1, handler).unwrap();
    };
    add();
    assert!(event_loop.remove_signal_handler(SIGUSR1));
    assert_eq!(reports.take(), [told]);
    add();
    add();
    assert_eq!(reports.take(), [told]);
    raise(SIGUSR1);
    event_loop.run_forever().unwrap(); // Removes itself.
    assert_eq!(reports.take(), [told]);
    add();
    let log = Log::default();
    let guard = super::LogDrop(log.clone(), "freed");
    event_loop.call_soon(move |_| drop(guard)).unwrap();
    event_loop.close().unwrap();
    assert_eq!((reports.take(), log.take()), (vec![told.to_owned()], vec!["freed".to_owned()]));
    assert!(event_loop.is_closed() && event_loop.driver_info().is_none());
    let other = new_loop();
    other.add_signal_handler(SIGUSR1, |_| ()).unwrap(); // Nobody has it any more.
}

// spec: LOOP-19
#[test]
fn nothing_runs_on_a_thread_that_ends_and_asking_is_allowed() {
    struct Asks(Option<EventLoop>);
    impl Drop for Asks {
        fn drop(&mut self) {
            assert!(EventLoop::current().is_none() && ringloop::current_task().is_none());
            assert!(EventLoop::running().is_err());
            if let Some(event_loop) = self.0.take() {
                drop(event_loop.create_task(pending::<()>()));
                let _ = event_loop.run_until_complete(async {});
                let waker = Waker::noop();
                let future = event_loop.create_future::<()>();
                assert!(pin!(future.clone()).poll(&mut Context::from_waker(waker)).is_pending());
                future.set_result(()).unwrap();
                event_loop.close().unwrap();
            }
            if let Ok(late) = EventLoop::new() {
                let _ = late.run_until_complete(sleep(Duration::ZERO));
            }
        }
    }
    thread_local! {
        static FIRST: RefCell<Option<Asks>> = const { RefCell::new(None) };
        static LAST: RefCell<Option<Asks>> = const { RefCell::new(None) };
    }
    let ended = thread::spawn(|| {
        // Destroyed in the order in which they were made, or the other way round: one of them late in any case.
        FIRST.set(Some(Asks(None)));
        let event_loop = new_loop();
        event_loop.run_until_complete(async {}).unwrap();
        LAST.set(Some(Asks(Some(event_loop.clone()))));
        FIRST.with_borrow_mut(|asks| asks.as_mut().unwrap().0 = Some(event_loop));
    });
    ended.join().unwrap();
}

/// Panics when it is woken; counts what it hears.
struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("waker");
    }
}

/// Polls `future` once with a waker that panics, and keeps it.
fn poll_with_panic<F: Future + Unpin>(future: &mut F) {
    let waker = Waker::from(Arc::new(PanickingWaker));
    assert!(pin!(future).poll(&mut Context::from_waker(&waker)).is_pending());
}

// spec: FUT-07
#[test]
fn a_waker_that_panics_keeps_nobody_else_from_being_woken() {
    let (event_loop, reports) = watched_loop();
    let future = event_loop.create_future::<u8>();
    let log = Log::default();
    let mut first = future.clone();
    poll_with_panic(&mut first);
    let waiting = event_loop.create_task(future.clone());
    turn(&event_loop);
    let mut third = future.clone();
    poll_with_panic(&mut third);
    let told = log.clone();
    future.add_done_callback(move |_| told.add("called"));
    future.set_result(7).unwrap();
    assert_eq!(reports.take(), ["Exception in a waker: waker"; 2]);
    assert_eq!(event_loop.run_until_complete(waiting).unwrap().unwrap().unwrap(), 7);
    assert_eq!(log.take(), ["called"]);
}

// spec: FUT-07, TASK-03
#[test]
fn the_end_of_a_task_reaches_all_though_a_waker_panics() {
    let (event_loop, reports) = watched_loop();
    let mut task = event_loop.create_task(ringloop::yield_now());
    let looks_on = task.task_ref();
    poll_with_panic(&mut task);
    let waiting = event_loop.create_task(async move { looks_on.finished().await });
    event_loop.run_until_complete(waiting).unwrap().unwrap().unwrap();
    assert_eq!(reports.take(), ["Exception in a waker: waker"]);
    assert_eq!(event_loop.stats().tasks, 0);
}

/// Panics as often as it is told when it is cloned.
struct Fickle {
    panics: Rc<Cell<u32>>,
    future: Option<LoopFuture<Self>>,
}

impl Clone for Fickle {
    fn clone(&self) -> Self {
        if let Some(future) = &self.future {
            let taken = take_now(future.clone());
            assert!(matches!(taken, Poll::Ready(Err(Error::InvalidState(_)))));
        }
        if self.panics.get() > 0 {
            self.panics.set(self.panics.get() - 1);
            panic!("not now");
        }
        Self { panics: Rc::clone(&self.panics), future: None }
    }
}

/// Takes the value of a future that is done.
fn take_now<T: 'static>(future: LoopFuture<T>) -> Poll<Result<T, Error>> {
    pin!(future.take()).poll(&mut Context::from_waker(Waker::noop()))
}

// spec: FUT-02
#[test]
fn a_clone_that_panics_leaves_the_value_in_its_future() {
    let event_loop = new_loop();
    let future = event_loop.create_future();
    let panics = Rc::new(Cell::new(1));
    let value = Fickle { panics: Rc::clone(&panics), future: Some(future.clone()) };
    future.set_result(value).unwrap();
    let task = event_loop.create_task(future.clone());
    let ended = event_loop.run_until_complete(task).unwrap();
    assert!(matches!(ended, Err(Error::Panic(text)) if text == "not now"));
    future.result().unwrap();
    let Poll::Ready(Ok(mut value)) = take_now(future) else { panic!("it is there") };
    value.future = None; // A cycle.
}

// spec: HANDLE-01
#[test]
fn cancelling_a_callback_that_panics_when_it_is_dropped_is_safe() {
    let (event_loop, reports) = watched_loop();
    let bomb = Bomb("callback");
    event_loop.call_soon(move |_| drop(bomb)).unwrap().cancel();
    let bomb = Bomb("timer");
    event_loop.call_later(Duration::from_secs(9), move |_| drop(bomb)).unwrap().cancel();
    let told = ["callback", "timer"].map(|it| format!("Exception in the drop of a callback: {it}"));
    assert_eq!(reports.take(), told);
    turn(&event_loop);
    assert_eq!((event_loop.stats().ready, event_loop.stats().timers), (0, 0));
}

// spec: LOOP-17, READY-14
#[test]
fn what_a_closed_loop_and_a_future_that_is_done_refuse_may_panic_when_it_is_dropped() {
    let (event_loop, drops) = (new_loop(), Drops::default());
    event_loop.close().unwrap();
    let reports = super::watch(&event_loop);
    let callback = || {
        let bomb = drops.bomb();
        move |_: &EventLoop| {
            let _ = &bomb;
        }
    };
    assert!(event_loop.call_soon(callback()).is_err());
    assert!(event_loop.call_later(Duration::from_secs(9), callback()).is_err());
    assert!(event_loop.proxy().call_soon_threadsafe(callback()).is_err());
    assert!(event_loop.add_signal_handler(SIGUSR1, callback()).is_err());
    assert!(event_loop.add_signal_handler(-1, callback()).is_err());
    let (ours, _theirs) = UnixStream::pair().unwrap();
    assert!(event_loop.add_reader(&ours, callback()).is_err());
    let bomb = drops.bomb();
    let task = event_loop.create_task(async move { drop(bomb) });
    assert!(task.result().is_err());
    let bomb = drops.bomb();
    drop(event_loop.run_in_executor(move || drop(bomb)));
    let bomb = drops.bomb();
    drop(ringloop::spawn(async move { drop(bomb) }));
    let bomb = drops.bomb();
    drop(ringloop::run_in_executor(move || drop(bomb)));
    let future = event_loop.create_future();
    future.cancel();
    assert!(future.set_result(drops.bomb()).is_err());
    assert_eq!((drops.count(), reports.take().len()), (11, 11));
}

// spec: ERR-06
#[test]
fn an_exception_handler_that_is_replaced_while_it_runs_goes_through_the_door() {
    let event_loop = new_loop();
    let log = Log::default();
    let (told, bomb) = (log.clone(), Bomb("first handler"));
    event_loop.set_exception_handler(move |event_loop, _| {
        let _ = &bomb;
        let told = told.clone();
        event_loop.set_exception_handler(move |_, context| told.add(context.message.to_string()));
    });
    event_loop.call_soon(|_| panic!("boom")).unwrap();
    log_soon(&event_loop, &log, "went on");
    turn(&event_loop);
    assert_eq!(log.take(), ["Exception in the drop of an exception handler", "went on"]);
    let bomb = Bomb("last handler");
    event_loop.close().unwrap();
    event_loop.set_exception_handler(move |_, _| {
        let _ = &bomb;
    });
    drop(event_loop);
}

// spec: FUT-10, TASK-12
#[test]
fn results_bodies_and_wakers_that_all_panic_are_all_dropped() {
    let (event_loop, reports) = watched_loop();
    let drops = Drops::default();
    let future = event_loop.create_future::<Counted>();
    let bomb = drops.bomb();
    future.add_done_callback(move |_| {
        let _ = &bomb;
    });
    future.set_result(drops.bomb()).unwrap();
    drop(future);
    turn(&event_loop); // Callback and result.
    assert_eq!((drops.count(), reports.take().len()), (2, 2));
    let never = event_loop.create_future::<Counted>();
    for _ in 0..3 {
        let bomb = drops.bomb();
        never.add_done_callback(move |_| {
            let _ = &bomb;
        });
    }
    drop(never);
    assert_eq!((drops.count(), reports.take().len()), (5, 3));
    let bomb = drops.bomb();
    drop(event_loop.create_task(async move {
        let _bomb = bomb;
        pending::<()>().await;
    }));
    turn(&event_loop);
    for _ in 0..2 {
        let bomb = drops.bomb();
        event_loop.call_soon(move |_| drop(bomb)).unwrap();
        let bomb = drops.bomb();
        event_loop.call_later(Duration::from_secs(9), move |_| drop(bomb)).unwrap();
    }
    event_loop.close().unwrap();
    assert_eq!(drops.count(), 5 + 1 + 4);
    event_loop.close().unwrap();
}

// spec: TIMER-01, TIMER-03, TIMER-08
#[test]
fn the_ends_of_time_are_no_trouble() {
    let event_loop = new_loop();
    let log = Log::default();
    let now = event_loop.time();
    let mut past = now;
    for shift in (0..63).rev() {
        past = past.checked_sub(Duration::from_secs(1 << shift)).unwrap_or(past);
    }
    let mut future = now;
    for shift in (0..63).rev() {
        future = future.checked_add(Duration::from_secs(1 << shift)).unwrap_or(future);
    }
    let add = |text| {
        let log = log.clone();
        move |_: &EventLoop| log.add(text)
    };
    event_loop.call_at(past, add("past")).unwrap();
    let far = event_loop.call_at(future, add("future")).unwrap();
    let later = event_loop.call_later(Duration::MAX, add("later")).unwrap();
    event_loop.set_slow_callback_duration(Duration::MAX);
    event_loop.set_debug(true);
    event_loop
        .run_until_complete(async {
            timeout(Duration::MAX, ringloop::yield_now()).await.unwrap();
            assert!(matches!(
                ringloop::timeout_at(past, pending::<()>()).await,
                Err(Error::Timeout)
            ));
            ringloop::sleep_until(past).await;
            let asleep = [sleep(Duration::MAX), ringloop::sleep_until(future)];
            for mut asleep in asleep {
                poll_fn(|cx| match pin!(&mut asleep).poll(cx) {
                    Poll::Pending => Poll::Ready(()),
                    Poll::Ready(()) => panic!("the end of time has come"),
                })
                .await;
            }
            let event_loop = EventLoop::running().unwrap();
            event_loop.shutdown_default_executor(Some(Duration::MAX)).await.unwrap();
        })
        .unwrap();
    turn(&event_loop);
    assert_eq!(log.take(), ["past"]);
    assert!(far.when() > now && later.when() > now);
    let asleep = pin!(sleep(Duration::MAX)).poll(&mut Context::from_waker(Waker::noop()));
    assert!(asleep.is_pending(), "without a loop a thread keeps the time");
}

// spec: TASK-07
#[test]
fn a_task_is_cancelled_as_often_as_one_likes() {
    let event_loop = new_loop();
    let task = event_loop.create_task(async {
        let _ = catch_cancel(pending::<()>()).await;
        7
    });
    task.task_ref().set_name("x".repeat(1 << 20));
    turn(&event_loop);
    for _ in 0..1000 {
        task.cancel();
    }
    assert_eq!(task.task_ref().cancelling(), 1000);
    assert_eq!(event_loop.run_until_complete(task).unwrap().unwrap(), 7);
}
