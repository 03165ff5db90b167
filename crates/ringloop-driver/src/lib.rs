//! The driver of ringloop: io_uring, or epoll where that is refused, behind ops, leases and errors. The library's unsafe code is
//! in this crate.
//!
//! It knows no event loop, no transport and no future. What it gives to the layer above is the contract below, which both
//! backends keep; no type of the io-uring crate passes it. The words are those of a ring. With epoll the kernel touches the
//! memory of an op only inside of a call: an op that is in flight waits until its descriptor is ready, and is tried then.
//!
//! # The life of an operation
//!
//! ```text
//!            start            submit, wait             an entry with F_MORE
//! (caller) -------> queued -----------------> in flight --------------------> Completion { more: true }
//!                     |  in the slab from here on  |
//!                     |                            |  the last entry
//!                     '------ cancel, retire ----> '----------------------> Completion { more: false }, out of the slab
//! ```
//!
//! Who may touch what, and when:
//!
//! | what | before the start | queued, in flight | after the last completion |
//! | --- | --- | --- | --- |
//! | the chunks of a [`SendQueue`], their list and header | the caller | the kernel reads; nobody writes, moves or drops | the caller has it back |
//! | the address of a connect or a datagram | the caller's own, copied | the kernel reads | dropped |
//! | memory of a receive without a group buffer | | the kernel writes | the caller's, as [`Received`] |
//! | a free buffer of a group | | the kernel writes, to any of them | |
//! | a buffer that a completion named | | whoever has a lease reads; nobody writes | free again with the last lease |
//! | the [`Descriptor`] | whoever has a clone | the op has a clone: it stays open | closed with the last clone |
//!
//! * **The slab owns what the kernel may touch.** It lets go at the last completion, never before; a caller that loses
//!   interest cancels and goes on. What the kernel does not let go of when the driver ends is leaked.
//! * **Nothing is dropped.** A request that does not fit into the submission queue waits in the backlog, in order, cancels
//!   too. An overflow of the completion queue is flushed by the next wait, and the multishots that it ended are armed again
//!   under their keys. A receive without a free buffer waits for one, first come first served, and holds no memory
//!   meanwhile.
//! * **A key is used once.** A completion finds its op by index and generation; one that finds nobody is counted as stale.
//! * **Completions are only decoded here.** They run nothing: the layer above takes them one by one
//!   ([`Driver::next_completion`]) and queues what they mean.
//! * **A child of a fork has no part in it**: its driver refuses to work, and what it drops touches nothing of the parent's.
//!
//! # Who holds which memory, and until when
//!
//! | memory | held by | until |
//! | --- | --- | --- |
//! | chunks that are sent, their list and header | the [`SendQueue`], which the op owns | the last completion gives it back |
//! | address, header and own memory of an op | the op | its last completion |
//! | the bytes of a buffer group | the driver, each op that is armed on the group, each [`Received`], each `Bytes` made of one | all of them have let go |
//! | the ring in which buffers are offered | the group | as its bytes, but for what went to `Bytes`; the kernel has its own hold of the pages |
//! | the two queues | the ring | it is closed, or mapped anew as it grows |
//! | a [`Descriptor`] | its clones, and each op on it | all of them have let go |
//! | a file of others | its slot in the ring's table, or a number of our own | [`Driver::unwatch`], or the next watch after its drop |
//! | the eventfd | the driver, each [`DriverWaker`], the handler of [`Signals`] | all of them have let go |
//! | what users gave: owners of bytes, payloads of panics | the chunk; the thread's list of panics | the chunk is sent or dropped; [`take_drop_panics`] |
//!
//! What happens to it:
//!
//! | memory | on a panic of the user's | in a forked child | on drop with ops in flight | at the end of the thread |
//! | --- | --- | --- | --- | --- |
//! | of an op | nothing: no code of the user's runs while it is changed | the child's copy is dropped, the parent's goes on | cancelled, and freed after its last completion; leaked if that does not come within two seconds | as on drop: a kept ring has no op |
//! | of a group | a lease that unwinds is returned | bytes: a copy; the ring: zeros, so that returned leases reach nobody | freed; leaked with an op that is armed on it and does not end | leases and `Bytes` keep the bytes |
//! | the queues, the descriptor of the ring | the driver's drop drains them | zeros, and the eventfd under the ring's number; every call is refused | kept for the next driver of the thread, or closed | closed |
//! | a [`Descriptor`] | closed with its last holder | the child has and closes its own copy | closed; kept open by an op that does not end | closed by whoever has it |
//! | owners of bytes | caught, kept for [`take_drop_panics`]; the next owner is dropped | dropped in the child, too, as all that it has copied | dropped last, when the ring is kept or closed; leaked with an op that does not end | dropped; panics are told to nobody |
//! | leases that are forgotten | | | their buffers stay lent, and their group stays | |
//! | a driver that is forgotten | | | all of it stays; the kernel ends the ops with the thread | |
//!
//! The user's code runs inside this crate in one way only: as the drop of an owner, through [`drop_foreign`], outside of every
//! borrow. It may make, use and drop other drivers there. Counts that guard memory (leases, ops) end the process before they
//! wrap; keys of ops never come again.
//!
//! # What a driver must give
//!
//! | | |
//! | --- | --- |
//! | ops | [`accept`](Driver::accept), [`recv`](Driver::recv), [`read`](Driver::read), [`recv_from`](Driver::recv_from), [`poll`](Driver::poll), and each of them as a multishot; [`send`](Driver::send), [`write`](Driver::write), [`send_to`](Driver::send_to), [`connect`](Driver::connect), [`shutdown`](Driver::shutdown), [`close`](Driver::close) |
//! | direct calls | [`try_recv`](Driver::try_recv), [`try_recv_from`](Driver::try_recv_from), [`try_send`](Driver::try_send), [`try_sendfile`](Driver::try_sendfile): on the caller's memory; [`try_recv_lent`](Driver::try_recv_lent): into a buffer that is lent; none waits; [`send_or_start`](Driver::send_or_start): a call or an op, whichever costs less |
//! | room | [`Descriptor::assured_room`]: what a send is sure to take |
//! | their end | [`cancel`](Driver::cancel): the last completion still comes; [`retire`](Driver::retire): it has come; [`look`](Driver::look) and [`peek`](Driver::peek): is it there already? |
//! | readiness | level-triggered by arming again: [`poll`](Driver::poll), and [`watch`](Driver::watch) with [`poll_watched`](Driver::poll_watched) for files of others, which it tells from later ones under the same number |
//! | leases | [`Received`], counted in an [`Account`]; [`Datagram`] |
//! | wake | [`DriverWaker`], from any thread, never lost; [`Signals`] on top |
//! | deadlines | [`Driver::wait`] with a [`Wait`], in the one call that also submits; never early |
//! | panics | [`take_drop_panics`]: of owners of bytes that were dropped; none gets out |
//! | errors | [`SetupError`] with cause and remedy; results as [`std::io::Error`] with their errno |
//! | numbers | [`Counters`], [`DriverInfo`] |

#![warn(missing_docs)]

mod backend;
mod buffers;
mod chunk;
mod completion;
mod config;
mod datagram;
mod descriptor;
mod driver;
mod entry;
mod epoll;
mod foreign;
mod fork;
mod generation;
mod key;
mod op;
mod refusal;
pub mod resolve;
mod room;
mod send_buffer;
mod send_queue;
mod setup;
mod signal;
mod sync;
mod sys;
#[cfg(feature = "testing")]
pub mod testing;
mod uring;
mod wait;
mod wake;
mod watch;

pub use buffers::{Account, Received};
pub use chunk::Chunk;
pub use completion::{Completion, Interest, Outcome, Readiness, SendStarted, Sink, Token};
pub use config::{
    Counters, DriverChoice, DriverConfig, DriverInfo, DriverKind, Features, RingCounters,
    UnknownDriver,
};
pub use datagram::Datagram;
pub use descriptor::{Descriptor, WeakDescriptor};
pub use driver::Driver;
pub use foreign::{discard_panic, drop_foreign, has_drop_panics, take_drop_panics};
pub use key::OpKey;
pub use room::SEND_OVERHEAD;
pub use send_buffer::SendBuffer;
pub use send_queue::SendQueue;
pub use setup::SetupError;
pub use signal::Signals;
pub use wait::Wait;
pub use wake::DriverWaker;
pub use watch::WatchedFile;
