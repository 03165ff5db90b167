//! `call_soon()` and its handles.

use std::cell::Cell;
use std::rc::Rc;

use ringloop::EventLoop;

use super::{Log, LogDrop, log_soon, new_loop, turn, watched_loop};

// spec: LOOP-01, LOOP-02
#[test]
fn callbacks_run_once_in_order_and_what_they_schedule_runs_in_the_next_iteration() {
    let (event_loop, log) = (new_loop(), Log::default());
    let inner = log.clone();
    event_loop
        .call_soon(move |event_loop| {
            inner.add("a");
            log_soon(event_loop, &inner, "d");
        })
        .unwrap();
    log_soon(&event_loop, &log, "b");
    log_soon(&event_loop, &log, "c");
    assert!(log.take().is_empty(), "never inline");
    turn(&event_loop);
    assert_eq!(log.take(), ["a", "b", "c"]);
    turn(&event_loop);
    assert_eq!(log.take(), ["d"]);
    turn(&event_loop);
    assert!(log.take().is_empty());
}

// spec: LOOP-02
#[test]
fn a_callback_that_reschedules_itself_does_not_keep_others_from_running() {
    fn again(event_loop: &EventLoop, count: Rc<Cell<u32>>) {
        count.set(count.get() + 1);
        event_loop.call_soon(move |event_loop| again(event_loop, count)).unwrap();
    }
    let event_loop = new_loop();
    let count = Rc::new(Cell::new(0));
    again(&event_loop, Rc::clone(&count));
    let proxy = event_loop.proxy();
    let thread = std::thread::spawn(move || proxy.stop());
    event_loop.run_forever().unwrap();
    thread.join().unwrap().unwrap();
    let before = count.get();
    turn(&event_loop);
    assert_eq!(count.get(), before + 1, "once per iteration");
}

// spec: LOOP-07
#[test]
fn a_handle_that_is_cancelled_by_one_before_it_in_the_iteration_is_skipped() {
    let (event_loop, log) = (new_loop(), Log::default());
    let slot = Rc::new(Cell::new(None::<ringloop::Handle>));
    let (to_cancel, inner) = (Rc::clone(&slot), log.clone());
    event_loop
        .call_soon(move |_| {
            inner.add("a");
            to_cancel.take().unwrap().cancel();
        })
        .unwrap();
    let b = log_soon(&event_loop, &log, "b");
    slot.set(Some(b.clone()));
    log_soon(&event_loop, &log, "c");
    turn(&event_loop);
    assert_eq!(log.take(), ["a", "c"]);
    assert!(b.cancelled());
}

// spec: HANDLE-01
#[test]
fn cancel_drops_the_callback_at_once_and_may_be_repeated() {
    let (event_loop, log) = (new_loop(), Log::default());
    let held = LogDrop(log.clone(), "freed");
    let handle = event_loop.call_soon(move |_| drop(held)).unwrap();
    assert!(!handle.cancelled());
    handle.cancel();
    assert_eq!(log.take(), ["freed"]);
    handle.cancel();
    assert!(handle.cancelled());
    turn(&event_loop);
    assert!(log.take().is_empty());
}

// spec: HANDLE-01
#[test]
fn the_drop_of_a_cancelled_callback_may_use_the_loop() {
    struct Scheduler(ringloop::LoopRef, Log);
    impl Drop for Scheduler {
        fn drop(&mut self) {
            log_soon(&self.0.upgrade().unwrap(), &self.1, "scheduled by a drop");
        }
    }
    let (event_loop, log) = (new_loop(), Log::default());
    let held = Scheduler(event_loop.downgrade(), log.clone());
    event_loop.call_soon(move |_| drop(held)).unwrap().cancel();
    turn(&event_loop);
    assert_eq!(log.take(), ["scheduled by a drop"]);
}

// spec: HANDLE-02
#[test]
fn cancelling_a_handle_that_ran_only_marks_it() {
    let (event_loop, log) = (new_loop(), Log::default());
    let handle = log_soon(&event_loop, &log, "ran");
    turn(&event_loop);
    assert!(!handle.cancelled());
    handle.cancel();
    assert!(handle.cancelled());
    assert_eq!(log.take(), ["ran"]);
}

// spec: HANDLE-04
#[test]
fn handles_outlive_their_loop() {
    let event_loop = new_loop();
    let handle = event_loop.call_soon(|_| ()).unwrap();
    let timer = event_loop.call_later(std::time::Duration::from_secs(9), |_| ()).unwrap();
    drop(event_loop);
    handle.cancel();
    timer.cancel();
    assert!(handle.cancelled() && timer.cancelled());
}

// spec: LOOP-20, MAP-02
#[test]
fn a_panic_in_a_callback_is_reported_and_the_next_callback_runs() {
    let (event_loop, reports) = watched_loop();
    let log = Log::default();
    event_loop.call_soon(|_| panic!("oh")).unwrap();
    log_soon(&event_loop, &log, "next");
    turn(&event_loop);
    assert_eq!(reports.take(), ["Exception in callback: oh"]);
    assert_eq!(log.take(), ["next"]);
}

// spec: LOOP-20, DEBUG-07
#[test]
fn the_report_of_a_callback_names_it_and_where_it_was_scheduled() {
    let event_loop = new_loop();
    let log = Log::default();
    let told = log.clone();
    event_loop.set_exception_handler(move |_, context| {
        told.add(format!("{} {:?}", context.message, context.handle.unwrap()));
    });
    event_loop.call_soon(|_| panic!()).unwrap();
    let line = line!() - 1;
    turn(&event_loop);
    let text = log.take().remove(0);
    let place = format!("callbacks.rs:{line}");
    assert!(text.starts_with("Exception in callback event_loop::callbacks::"), "{text}");
    assert_eq!(text.matches(&place).count(), 2, "in the message and in the handle: {text}");
}

// spec: LOOP-27
#[test]
fn a_callback_is_never_run_inside_another() {
    let event_loop = new_loop();
    let depth = Rc::new(Cell::new(0));
    for _ in 0..3 {
        let depth = Rc::clone(&depth);
        event_loop
            .call_soon(move |event_loop| {
                depth.set(depth.get() + 1);
                assert_eq!(depth.get(), 1);
                event_loop.call_soon(|_| ()).unwrap();
                event_loop.flush().unwrap();
                depth.set(depth.get() - 1);
            })
            .unwrap();
    }
    turn(&event_loop);
    assert_eq!(event_loop.stats().reports, 0);
}
