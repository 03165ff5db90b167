//! The records of the feature `tracing`: their targets, levels and fields, which programs may filter by.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringloop::{Error, EventLoop, Exclusive, Listen, spawn, yield_now};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

// spec: DEBUG-02
#[test]
fn a_slow_callback_is_a_warning_that_says_what_it_was_and_for_how_long() {
    let records = records_of(|| {
        let event_loop = debug_loop();
        let all_are_slow = |event_loop: &EventLoop| {
            event_loop.set_slow_callback_duration(Duration::ZERO);
            event_loop.stop();
        };
        event_loop.call_soon(all_are_slow).unwrap();
        event_loop.run_forever().unwrap();
    });
    let [slow] = &records[..] else { panic!("{records:?}") };
    assert_eq!((slow.target, slow.level), ("ringloop::slow", Level::WARN));
    let what = slow.text("what");
    assert!(what.starts_with("<Handle ") && what.contains("tracing.rs:"), "{what}");
    let seconds: f64 = slow.text("seconds").parse().unwrap();
    let message = slow.text("message");
    assert!(message.starts_with(&format!("Executing {what} took ")), "{message}");
    assert!(message.ends_with(&format!("{seconds:.3} seconds")), "{message}");
}

// spec: MAP-04
#[test]
fn what_is_left_open_is_a_warning_that_says_what_it_is() {
    let records = records_of(|| {
        let event_loop = debug_loop();
        let server = event_loop.create_server(|| Exclusive::new(()), Listen::on("127.0.0.1", 0));
        let _server = event_loop.run_until_complete(server).unwrap().unwrap();
        event_loop.close().unwrap();
    });
    let unclosed = one_of(&records, "ringloop::unclosed");
    assert_eq!(unclosed.level, Level::WARN);
    let what = unclosed.text("what");
    assert!(what.starts_with("<Listener fd="), "{what}");
    assert_eq!(unclosed.text("message"), format!("unclosed {what}"));
}

// spec: MAP-03
#[test]
fn a_result_that_nobody_took_is_a_warning_that_names_the_task() {
    let records = records_of(|| {
        let main = async {
            drop(spawn(async { Err::<u8, _>("nobody knows") }).named("the forgotten"));
            yield_now().await;
            yield_now().await;
        };
        debug_loop().run_until_complete(main).unwrap();
    });
    let unretrieved = one_of(&records, "ringloop::unretrieved");
    assert_eq!(unretrieved.level, Level::WARN);
    let what = unretrieved.text("what");
    assert!(what.contains("name='the forgotten' created at"), "{what}");
    assert_eq!(unretrieved.text("message"), format!("result was never retrieved: {what}"));
}

// spec: DEBUG-06
#[test]
fn what_a_connection_does_is_a_record_for_those_who_debug() {
    let listen_and_close = || async {
        let this = EventLoop::running().unwrap();
        let listen = Listen::on("127.0.0.1", 0);
        let server = this.create_server(|| Exclusive::new(()), listen).await.unwrap();
        server.close();
        server.wait_closed().await.unwrap();
    };
    let records = records_of(|| debug_loop().run_until_complete(listen_and_close()).unwrap());
    let note = one_of(&records, "ringloop::io");
    assert_eq!(note.level, Level::DEBUG);
    assert!(note.text("message").contains("127.0.0.1"), "{note:?}");
    let without_debug_mode = || {
        EventLoop::new().unwrap().run_until_complete(listen_and_close()).unwrap();
    };
    assert!(records_of(without_debug_mode).is_empty());
}

// spec: MAP-03
#[test]
fn what_goes_to_the_default_exception_handler_is_an_error_also_without_debug_mode() {
    let records = records_of(|| {
        let event_loop = EventLoop::new().unwrap();
        let future = event_loop.create_future::<()>();
        future.set_exception(Error::Timeout).unwrap();
        drop(future);
    });
    let [exception] = &records[..] else { panic!("{records:?}") };
    assert_eq!((exception.target, exception.level), ("ringloop::exception", Level::ERROR));
    assert_eq!(exception.text("what"), "Future exception was never retrieved");
    let message = exception.text("message");
    assert!(message.starts_with("Future exception was never retrieved"), "{message}");
}

// spec: MAP-03
#[test]
fn a_handler_of_the_programs_own_gets_the_exception_in_the_place_of_the_record() {
    let told = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&told);
    let records = records_of(move || {
        let event_loop = EventLoop::new().unwrap();
        event_loop.set_exception_handler(move |_, context| {
            log.borrow_mut().push(context.message.to_string());
        });
        let future = event_loop.create_future::<()>();
        future.set_exception(Error::Timeout).unwrap();
        drop(future);
    });
    assert!(records.is_empty(), "{records:?}");
    assert_eq!(*told.borrow(), ["Future exception was never retrieved"]);
}

fn debug_loop() -> EventLoop {
    let long = Duration::from_secs(3600);
    EventLoop::builder().debug(true).slow_callback_duration(long).build().unwrap()
}

/// A record as a subscriber gets it.
#[derive(Debug)]
struct Told {
    target: &'static str,
    level: Level,
    fields: BTreeMap<&'static str, String>,
}

impl Told {
    #[track_caller]
    fn text(&self, field: &str) -> &str {
        self.fields.get(field).unwrap_or_else(|| panic!("no {field} in {self:?}"))
    }
}

#[track_caller]
fn one_of<'a>(records: &'a [Told], target: &str) -> &'a Told {
    let mut found = records.iter().filter(|record| record.target == target);
    match (found.next(), found.next()) {
        (Some(record), None) => record,
        _ => panic!("not one {target} in {records:?}"),
    }
}

/// The library's records while `run` runs.
fn records_of(run: impl FnOnce()) -> Vec<Told> {
    let records = Arc::default();
    tracing::subscriber::with_default(Collector(Arc::clone(&records)), run);
    std::mem::take(&mut *records.lock().unwrap())
}

struct Collector(Arc<Mutex<Vec<Told>>>);

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("ringloop")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1) // The library has no spans.
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (target, level) = (event.metadata().target(), *event.metadata().level());
        self.0.lock().unwrap().push(Told { target, level, fields: fields.0 });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}
