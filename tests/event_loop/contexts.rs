//! Context variables: who sees which value.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{
    ContextVar, EventLoop, JoinSet, Protocol, ProtocolResult, Received, TaskGroup, Transport,
    copy_context, gather, spawn, yield_now,
};
use ringloop_tests::clean::assert_clean;

use super::{Log, LogDrop, new_loop, turn, watched_loop};

static NUMBER: ContextVar<u32> = ContextVar::new("NUMBER");
static OTHER: ContextVar<String> = ContextVar::new("OTHER");

/// Logs what is set where it is called.
fn seen(log: &Log, who: &str) {
    log.add(format!("{who} {:?}", NUMBER.get()));
}

// spec: MAP-16
#[test]
fn a_task_begins_with_a_copy_of_what_is_set_where_it_is_made() {
    let event_loop = new_loop();
    event_loop
        .run_until_complete(async {
            NUMBER.set(1);
            OTHER.set("other".into());
            let child = spawn(async {
                let first = NUMBER.get();
                NUMBER.set(2);
                yield_now().await;
                let grandchild = spawn(async { (NUMBER.get(), OTHER.get()) }).await.unwrap();
                (first, NUMBER.get(), grandchild)
            });
            NUMBER.set(3);
            assert_eq!(child.await.unwrap(), (Some(1), Some(2), (Some(2), Some("other".into()))));
            assert_eq!(NUMBER.get(), Some(3), "nobody sees what a child sets");
        })
        .unwrap();
    assert_eq!(NUMBER.get(), None, "nor what the main task does");
}

// spec: MAP-16
#[test]
fn the_main_task_begins_with_what_its_thread_has_set_and_callbacks_made_before_do_not() {
    let (event_loop, log) = (new_loop(), Log::default());
    let before = log.clone();
    event_loop.call_soon(move |_| seen(&before, "before")).unwrap();
    NUMBER.set(1);
    let after = log.clone();
    event_loop.call_soon(move |_| seen(&after, "after")).unwrap();
    let main = event_loop.run_until_complete(async { NUMBER.get() }).unwrap();
    assert_eq!((main, NUMBER.get()), (Some(1), Some(1)));
    assert_eq!(log.take(), ["before None", "after Some(1)"]);
    NUMBER.unset();
    assert_eq!(NUMBER.get(), None);
}

// spec: MAP-16
#[test]
fn callbacks_and_timers_see_what_was_set_where_they_were_made_and_set_it_for_themselves() {
    let (event_loop, log) = (new_loop(), Log::default());
    let all = log.clone();
    event_loop
        .run_until_complete(async move {
            let event_loop = EventLoop::running().unwrap();
            for number in 1..3 {
                NUMBER.set(number);
                let (soon, later, done) = (all.clone(), all.clone(), all.clone());
                event_loop
                    .call_soon(move |event_loop| {
                        seen(&soon, "soon");
                        NUMBER.set(10 + NUMBER.get().unwrap());
                        let inner = soon;
                        event_loop.call_soon(move |_| seen(&inner, "inner")).unwrap();
                    })
                    .unwrap();
                event_loop.call_later(Duration::ZERO, move |_| seen(&later, "later")).unwrap();
                let future = event_loop.create_future::<()>();
                future.add_done_callback(move |_| seen(&done, "done"));
                NUMBER.unset();
                future.set_result(()).unwrap();
            }
            for _ in 0..4 {
                yield_now().await;
            }
        })
        .unwrap();
    let mut lines = log.take();
    lines.sort();
    let expected = ["done", "inner", "later", "soon"].iter().flat_map(|who| {
        [1, 2].map(|n| format!("{who} Some({})", if *who == "inner" { n + 10 } else { n }))
    });
    assert!(lines.iter().cloned().eq(expected), "{lines:?}");
}

// spec: MAP-16
#[test]
fn children_of_groups_sets_and_gathers_see_what_their_parent_has_set() {
    ringloop::run(async {
        NUMBER.set(7);
        let values = gather((0..3).map(|_| async { NUMBER.get() })).await.unwrap();
        let mut set = JoinSet::new();
        set.spawn(async { NUMBER.get() });
        let joined = set.join_next().await.unwrap().unwrap();
        let group = TaskGroup::run(async |group| {
            group.create_task(async { Ok::<_, ringloop::Error>(NUMBER.get()) }).await
        });
        assert_eq!((values, joined, group.await.unwrap()), (vec![Some(7); 3], Some(7), Some(7)));
    })
    .unwrap();
}

// spec: MAP-16
#[test]
fn a_reader_sees_what_was_set_where_it_was_added_each_time() {
    let (event_loop, log) = (new_loop(), Log::default());
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    NUMBER.set(5);
    let reads = log.clone();
    let from = ours.try_clone().unwrap();
    event_loop
        .add_reader(&ours, move |event_loop| {
            seen(&reads, "reader");
            NUMBER.set(6);
            let mut byte = [0];
            (&from).read_exact(&mut byte).unwrap();
            event_loop.stop();
        })
        .unwrap();
    NUMBER.unset();
    for _ in 0..2 {
        theirs.write_all(b"x").unwrap();
        event_loop.run_forever().unwrap();
    }
    assert!(event_loop.remove_reader(&ours).unwrap());
    assert_eq!(log.take(), ["reader Some(5)", "reader Some(5)"]);
    assert_eq!(NUMBER.get(), None);
}

struct Sees(Log);

impl Protocol for Sees {
    fn connection_made(&self, _: &Transport) {
        seen(&self.0, "made");
    }

    fn data_received(&self, transport: &Transport, _: Received) -> ProtocolResult {
        seen(&self.0, "data");
        transport.close();
        Ok(())
    }

    fn connection_lost(&self, _: &Transport, _: Option<&io::Error>) {
        seen(&self.0, "lost");
    }
}

// spec: MAP-16
#[test]
fn a_protocol_sees_what_was_set_where_its_server_began_to_listen() {
    let (event_loop, log) = (new_loop(), Log::default());
    let of_protocol = log.clone();
    event_loop
        .run_until_complete(async move {
            let event_loop = EventLoop::running().unwrap();
            let logged = of_protocol.clone();
            NUMBER.set(1);
            let factory = move || Sees(logged.clone());
            let server = event_loop.create_server(factory, ("127.0.0.1", 0)).await.unwrap();
            NUMBER.set(2);
            let mut client = TcpStream::connect(server.local_addr().unwrap().to_string()).unwrap();
            client.write_all(b"x").unwrap();
            while of_protocol.0.borrow().len() < 3 {
                yield_now().await;
            }
            server.close();
            server.wait_closed().await.unwrap();
        })
        .unwrap();
    assert_eq!(log.take(), ["made Some(1)", "data Some(1)", "lost Some(1)"]);
    assert_clean(&event_loop);
}

// spec: MAP-16
#[test]
fn a_copy_of_the_context_runs_what_others_call_and_keeps_nothing_of_it() {
    NUMBER.set(1);
    let context = copy_context();
    NUMBER.set(2);
    let inside = context.run(|| {
        let before = NUMBER.get();
        NUMBER.set(3);
        let nested = context.clone().run(|| NUMBER.get());
        (before, nested, NUMBER.get())
    });
    assert_eq!(inside, (Some(1), Some(1), Some(3)));
    let panics = || context.run(|| panic!("{:?}", NUMBER.get()));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics));
    assert!(panicked.is_err());
    assert_eq!((context.run(|| NUMBER.get()), NUMBER.get()), (Some(1), Some(2)));
    let elsewhere = std::thread::spawn(|| NUMBER.get()).join().unwrap();
    assert_eq!(elsewhere, None, "a thread has its own");
    NUMBER.unset();
}

/// Uses the variable in its drop, and panics.
struct Meddler(Rc<Cell<u32>>);

static MEDDLER: ContextVar<RefCell<Option<Meddler>>> = ContextVar::new("MEDDLER");

impl Drop for Meddler {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
        MEDDLER.with(|value| assert!(value.is_none_or(|value| value.try_borrow().is_ok())));
        MEDDLER.unset();
        NUMBER.set(99);
        panic!("in the drop of a value");
    }
}

// spec: MAP-16
#[test]
fn a_value_whose_drop_uses_the_variable_and_panics_harms_nobody() {
    let (event_loop, reports) = watched_loop();
    let dropped = Rc::new(Cell::new(0));
    let value = |dropped: &Rc<Cell<u32>>| RefCell::new(Some(Meddler(Rc::clone(dropped))));
    let count = Rc::clone(&dropped);
    event_loop
        .run_until_complete(async move {
            MEDDLER.set(value(&count));
            MEDDLER.set(value(&count)); // Drops the first one.
            spawn(async move {
                MEDDLER.set(value(&count));
                MEDDLER.with(|inner| {
                    MEDDLER.unset(); // It lives until this has returned.
                    assert!(inner.is_some_and(|inner| inner.borrow().is_some()));
                });
            })
            .await
            .unwrap();
        })
        .unwrap();
    turn(&event_loop);
    assert_eq!(dropped.get(), 3);
    let texts = reports.take();
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert!(texts.iter().all(|text| text.ends_with("in the drop of a value")), "{texts:?}");
    NUMBER.unset();
    drop(event_loop);
}

static HELD: ContextVar<Rc<LogDrop>> = ContextVar::new("HELD");

// spec: MAP-16
#[test]
fn values_go_with_the_last_task_or_callback_that_has_them() {
    let (event_loop, log) = (new_loop(), Log::default());
    HELD.set(Rc::new(LogDrop(log.clone(), "value")));
    let handle = event_loop.call_soon(|_| ()).unwrap();
    let task = event_loop.spawn(async {
        assert!(HELD.with(|value| value.is_some()));
        HELD.unset();
    });
    HELD.unset();
    turn(&event_loop);
    assert!(task.done() && log.take().is_empty(), "the handle has it still");
    drop(handle);
    assert_eq!(log.take(), ["value"]);
    let pending = event_loop.spawn(async {
        HELD.set(Rc::new(LogDrop(Log::default(), "other")));
        std::future::pending::<()>().await;
    });
    drop(pending);
    turn(&event_loop);
    event_loop.set_exception_handler(|_, _| {});
    event_loop.close().unwrap();
}

// spec: MAP-16
#[test]
fn a_body_that_is_dropped_sees_the_values_of_its_task() {
    struct SeesInDrop(Log);
    impl Drop for SeesInDrop {
        fn drop(&mut self) {
            seen(&self.0, "drop");
        }
    }
    let (event_loop, log) = (new_loop(), Log::default());
    let body = |log: &Log| {
        let sees = SeesInDrop(log.clone());
        async move {
            NUMBER.set(4);
            let _sees = sees;
            std::future::pending::<()>().await;
        }
    };
    let cancelled = event_loop.spawn(body(&log));
    turn(&event_loop);
    cancelled.cancel();
    turn(&event_loop);
    drop(event_loop.spawn(body(&log)));
    turn(&event_loop);
    event_loop.set_exception_handler(|_, _| {});
    event_loop.close().unwrap();
    assert_eq!(log.take(), ["drop Some(4)", "drop Some(4)"]);
}
