//! A protocol that writes a line per callback.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Poll, Waker};

use ringloop::{AfterEof, Protocol, ProtocolResult, Received, Transport, WriteMode};

use crate::python;
use crate::trace::Trace;

/// Writes each callback to a lane of a trace, then runs what the test put there.
pub struct Recorder {
    trace: Trace,
    lane: String,
    mode: WriteMode,
    after_eof: AfterEof,
    counts_data: bool,
    hooks: Hooks,
    total: Cell<usize>,
    made: Cell<bool>,
    lost: Event,
}

#[derive(Default)]
struct Hooks {
    made: Option<Hook>,
    data: Option<DataHook>,
    eof: Option<Hook<ProtocolResult>>,
    pause: Option<Hook>,
    resume: Option<Hook>,
    lost: Option<Hook>,
}

type Hook<R = ()> = Box<dyn Fn(&Transport) -> R>;
type DataHook = Box<dyn Fn(&Transport, Received) -> ProtocolResult>;

impl Recorder {
    /// One that writes to the lane `proto`.
    pub fn new(trace: &Trace, mode: WriteMode) -> Self {
        Self {
            trace: trace.clone(),
            lane: "proto".to_owned(),
            mode,
            after_eof: AfterEof::Close,
            counts_data: false,
            hooks: Hooks::default(),
            total: Cell::new(0),
            made: Cell::new(false),
            lost: Event::default(),
        }
    }

    /// Writes to another lane.
    #[must_use]
    pub fn lane(mut self, lane: impl Into<String>) -> Self {
        self.lane = lane.into();
        self
    }

    /// Stays open for writing when the peer has closed its sending side.
    #[must_use]
    pub fn keep_open(mut self) -> Self {
        self.after_eof = AfterEof::KeepOpen;
        self
    }

    /// Writes no line per delivery; the line of the end says how many bytes there were.
    #[must_use]
    pub fn count_data(mut self) -> Self {
        self.counts_data = true;
        self
    }

    /// Runs `hook` in `connection_made`.
    #[must_use]
    pub fn on_made(mut self, hook: impl Fn(&Transport) + 'static) -> Self {
        self.hooks.made = Some(Box::new(hook));
        self
    }

    /// Runs `hook` in `data_received`.
    #[must_use]
    pub fn on_data(
        mut self,
        hook: impl Fn(&Transport, Received) -> ProtocolResult + 'static,
    ) -> Self {
        self.hooks.data = Some(Box::new(hook));
        self
    }

    /// Writes back what is received.
    #[must_use]
    pub fn echo(self) -> Self {
        self.on_data(|transport, data| Ok(transport.write(data)?))
    }

    /// Runs `hook` in `eof_received`.
    #[must_use]
    pub fn on_eof(mut self, hook: impl Fn(&Transport) -> ProtocolResult + 'static) -> Self {
        self.hooks.eof = Some(Box::new(hook));
        self
    }

    /// Runs `hook` in `pause_writing`.
    #[must_use]
    pub fn on_pause(mut self, hook: impl Fn(&Transport) + 'static) -> Self {
        self.hooks.pause = Some(Box::new(hook));
        self
    }

    /// Runs `hook` in `resume_writing`.
    #[must_use]
    pub fn on_resume(mut self, hook: impl Fn(&Transport) + 'static) -> Self {
        self.hooks.resume = Some(Box::new(hook));
        self
    }

    /// Runs `hook` in `connection_lost`.
    #[must_use]
    pub fn on_lost(mut self, hook: impl Fn(&Transport) + 'static) -> Self {
        self.hooks.lost = Some(Box::new(hook));
        self
    }

    /// How many bytes were received.
    pub fn total(&self) -> usize {
        self.total.get()
    }

    /// Whether `connection_made` was called.
    pub fn is_made(&self) -> bool {
        self.made.get()
    }

    /// Waits for `connection_lost`.
    pub async fn lost(&self) {
        self.lost.wait().await;
    }

    fn log(&self, event: impl AsRef<str>) {
        self.trace.log(&self.lane, event);
    }
}

impl Protocol for Recorder {
    fn connection_made(&self, transport: &Transport) {
        transport.set_write_mode(self.mode);
        self.made.set(true);
        self.log("connection_made");
        run(&self.hooks.made, transport);
    }

    fn data_received(&self, transport: &Transport, data: Received) -> ProtocolResult {
        self.total.set(self.total.get() + data.len());
        if !self.counts_data {
            self.log(format!("data_received({})", python::short(&data)));
        }
        self.hooks.data.as_ref().map_or(Ok(()), |hook| hook(transport, data))
    }

    fn eof_received(&self, transport: &Transport) -> ProtocolResult<AfterEof> {
        if self.counts_data {
            self.log(format!("eof_received after {} bytes", self.total.get()));
        } else {
            self.log("eof_received");
        }
        if let Some(hook) = &self.hooks.eof {
            hook(transport)?;
        }
        Ok(self.after_eof)
    }

    fn connection_lost(&self, transport: &Transport, error: Option<&io::Error>) {
        self.log(format!("connection_lost({})", python::kind_or_none(error)));
        self.lost.set();
        run(&self.hooks.lost, transport);
    }

    fn pause_writing(&self, transport: &Transport) {
        self.log("pause_writing");
        run(&self.hooks.pause, transport);
    }

    fn resume_writing(&self, transport: &Transport) {
        self.log("resume_writing");
        run(&self.hooks.resume, transport);
    }
}

fn run(hook: &Option<Hook>, transport: &Transport) {
    if let Some(hook) = hook {
        hook(transport);
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("lane", &self.lane).finish_non_exhaustive()
    }
}

/// Something that happens once, and that one task waits for.
#[derive(Default)]
pub struct Event {
    happened: Cell<bool>,
    waiter: Cell<Option<Waker>>,
}

impl Event {
    /// It has happened.
    pub fn set(&self) {
        self.happened.set(true);
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }

    /// Whether it has.
    pub fn is_set(&self) -> bool {
        self.happened.get()
    }

    /// Returns when it has.
    pub async fn wait(&self) {
        poll_fn(|cx| {
            if self.happened.get() {
                return Poll::Ready(());
            }
            self.waiter.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("happened", &self.happened.get()).finish_non_exhaustive()
    }
}
