//! What a program does around the loop's wait.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard};
use std::thread;

use ringloop::EventLoop;

use super::turn;

// spec: LOOP-05
#[test]
fn another_thread_has_the_lock_of_the_loop_while_it_waits_and_at_no_other_time() {
    static LOCK: Mutex<u32> = Mutex::new(0);
    let held = Rc::new(RefCell::new(Some(LOCK.lock().unwrap())));
    let around = {
        let held: Rc<RefCell<Option<MutexGuard<'_, u32>>>> = Rc::clone(&held);
        move |wait: &mut dyn FnMut()| {
            drop(held.take());
            wait();
            held.replace(Some(LOCK.lock().unwrap()));
        }
    };
    let event_loop = EventLoop::builder().around_wait(around).build().unwrap();
    let proxy = event_loop.proxy();
    let other = thread::spawn(move || {
        // The loop has nothing to do, so this gets the lock in a wait that nothing but the call below ends.
        *LOCK.lock().unwrap() += 1;
        proxy
            .call_soon_threadsafe(|event_loop| {
                assert!(LOCK.try_lock().is_err(), "a callback runs with the lock");
                event_loop.stop();
            })
            .unwrap();
    });
    event_loop.run_forever().unwrap();
    assert_eq!(held.take().as_deref(), Some(&1));
    assert_eq!(event_loop.stats().reports, 0);
    other.join().unwrap();
}

// spec: LOOP-05
#[test]
fn what_is_ready_is_seen_in_the_same_iteration_whatever_is_done_around_the_wait() {
    let (calls, texts) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
    let count = Rc::clone(&calls);
    let around = move |wait: &mut dyn FnMut()| {
        count.set(count.get() + 1);
        match count.get() {
            1 => {}
            2 => panic!("before the wait"),
            3 => {
                wait();
                panic!("after the wait");
            }
            _ => (0..3).for_each(|_| wait()),
        }
    };
    let event_loop = EventLoop::builder().around_wait(around).build().unwrap();
    let log = Rc::clone(&texts);
    event_loop.set_exception_handler(move |_, context| {
        assert_eq!(context.message, "Exception in callback EventLoopBuilder.around_wait()");
        log.borrow_mut().push(context.error.unwrap().to_string());
    });
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();
    let seen = Rc::new(Cell::new(0));
    for turns in 1..=6 {
        let count = Rc::clone(&seen);
        event_loop.add_reader(&ours, move |_| count.set(count.get() + 1)).unwrap();
        turn(&event_loop);
        event_loop.remove_reader(&ours).unwrap();
        assert_eq!(
            (seen.get(), calls.get(), event_loop.stats().iterations),
            (turns, turns, turns as u64)
        );
    }
    assert_eq!(texts.take(), ["before the wait", "after the wait"]);
}
