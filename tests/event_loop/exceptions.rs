//! The exception handler.

use std::fmt;
use std::rc::Rc;

use ringloop::{Error, ErrorGroup, ExceptionContext};

use super::{Log, log_soon, new_loop, turn, watch, watched_loop};

// spec: ERR-01
#[test]
fn the_handler_gets_what_the_context_tells() {
    let event_loop = new_loop();
    let log = Log::default();
    let told = log.clone();
    event_loop.set_exception_handler(move |event_loop, context| {
        assert!(!event_loop.is_closed());
        let socket = context.socket.unwrap().as_any().downcast_ref::<u16>();
        told.add(format!("{context}"));
        told.add(format!("{socket:?} {:?}", context.future.is_some()));
    });
    let (error, transport) = (Error::Cancelled, String::from("t"));
    let context = ExceptionContext::new("what happened")
        .error(&error)
        .handle(&"h")
        .task(&"k")
        .transport(&transport)
        .protocol(&'p')
        .socket(&80_u16);
    event_loop.call_exception_handler(&context);
    let text = "what happened\nhandle: \"h\"\ntask: \"k\"\nprotocol: 'p'\nsocket: 80\ntransport: \"t\"\nerror: cancelled";
    assert_eq!(log.take(), [text, "Some(80) false"]);
}

// spec: ERR-01
#[test]
fn the_handler_can_be_replaced_asked_for_and_reset() {
    let event_loop = new_loop();
    assert!(event_loop.exception_handler().is_none());
    let first = watch(&event_loop);
    let handler = event_loop.exception_handler().unwrap();
    let second = watch(&event_loop);
    assert!(!Rc::ptr_eq(&handler, &event_loop.exception_handler().unwrap()));
    event_loop.call_exception_handler(&ExceptionContext::new("to the second"));
    handler(&event_loop, &ExceptionContext::new("to the first"));
    event_loop.reset_exception_handler();
    assert!(event_loop.exception_handler().is_none());
    event_loop.call_exception_handler(&ExceptionContext::new("to stderr"));
    assert_eq!(
        (first.take(), second.take()),
        (vec!["to the first".into()], vec!["to the second".into()])
    );
    assert_eq!(event_loop.stats().reports, 2);
}

// spec: ERR-06
#[test]
fn a_handler_that_panics_is_told_of_on_stderr_and_the_loop_lives() {
    let event_loop = new_loop();
    let log = Log::default();
    event_loop.set_exception_handler(|_, _| panic!("in the handler"));
    event_loop.call_soon(|_| panic!("in the callback")).unwrap();
    log_soon(&event_loop, &log, "next");
    turn(&event_loop);
    assert_eq!(log.take(), ["next"]);
}

// spec: ERR-06
#[test]
fn a_context_that_cannot_be_shown_harms_nobody() {
    struct Unshowable;
    impl fmt::Debug for Unshowable {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("in Debug")
        }
    }
    let event_loop = new_loop();
    event_loop.default_exception_handler(&ExceptionContext::new("message").protocol(&Unshowable));
    turn(&event_loop);
}

// spec: ERR-01
#[test]
fn the_handler_may_use_the_loop_and_replace_itself() {
    let (event_loop, log) = (new_loop(), Log::default());
    let inner = log.clone();
    event_loop.set_exception_handler(move |event_loop, _| {
        log_soon(event_loop, &inner, "scheduled");
        event_loop.reset_exception_handler();
        inner.add("still there");
    });
    event_loop.call_soon(|_| panic!()).unwrap();
    turn(&event_loop);
    turn(&event_loop);
    assert_eq!(log.take(), ["still there", "scheduled"]);
}

// spec: MAP-13, MAP-14, MAP-15
#[test]
fn errors_keep_their_text_their_kind_and_their_errno() {
    use std::io::{Error as IoError, ErrorKind};
    let copy = Clone::clone; // Each who awaits gets one.
    let error = Error::from(IoError::from_raw_os_error(111));
    assert_eq!(copy(&error).raw_os_error(), Some(111));
    assert_eq!(IoError::from(error).raw_os_error(), Some(111));
    let both =
        Error::from(ErrorGroup::new("both failed", [IoError::other("one"), IoError::other("two")]));
    assert_eq!(copy(&both).to_string(), "both failed (2 sub-exceptions): one, two");
    let through = IoError::from(Error::Timeout);
    assert_eq!(through.kind(), ErrorKind::TimedOut);
    assert!(matches!(Error::from(through), Error::Timeout));
    let own = Error::other("the user's own");
    assert_eq!(copy(&own).to_string(), own.to_string());
}

// spec: MAP-18
#[test]
fn what_is_told_is_counted() {
    let (event_loop, reports) = watched_loop();
    for _ in 0..3 {
        event_loop.call_soon(|_| panic!()).unwrap();
    }
    turn(&event_loop);
    assert_eq!((reports.take().len(), event_loop.stats().reports), (3, 3));
}
