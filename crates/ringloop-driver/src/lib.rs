//! The ring of ringloop: io_uring behind ops, leases and errors. The library's unsafe code is in this crate.
//!
//! It knows no event loop, no transport and no future. What it gives to the layer above is the contract below; no type of
//! the io-uring crate passes it, so that a second driver can stand behind the same face.
//!
//! # The life of an operation
//!
//! ```text
//!            start            submit, wait              CQE with F_MORE
//! (caller) -------> queued -----------------> in flight ---------------> Completion { more: true }
//!                     |  in the slab from here on  |
//!                     |                            |  last CQE
//!                     '------ cancel, retire ----> '---------> Completion { more: false }, out of the slab
//! ```
//!
//! * **The slab owns what the kernel may touch**: the [`SendQueue`] with its chunks, vector and header, the address of a
//!   connect, the memory of a receive without a group buffer, and a clone of the [`Descriptor`]. It lets go at the last
//!   completion, never before; a caller that loses interest cancels and goes on.
//! * **Nothing is dropped.** A request that does not fit into the submission queue waits in the backlog, in order, cancels
//!   too. An overflow of the completion queue is flushed by the next wait, and the multishots that it ended are armed again
//!   under their keys. A receive without a free buffer waits for one, first come first served.
//! * **A key is used once.** A completion finds its op by index and generation; one that finds nobody is counted as stale.
//! * **Completions are only decoded here.** They run nothing: the layer above takes them one by one
//!   ([`Driver::next_completion`]) and queues what they mean.
//!
//! # What a driver must give
//!
//! | | |
//! | --- | --- |
//! | ops | [`accept`](Driver::accept), [`recv`](Driver::recv), [`send`](Driver::send), [`connect`](Driver::connect), [`poll`](Driver::poll), [`close`](Driver::close); multishot accept and receive; [`cancel`](Driver::cancel), [`retire`](Driver::retire), [`look`](Driver::look) |
//! | leases | [`Received`], counted in an [`Account`] |
//! | wake | [`DriverWaker`], from any thread, never lost; [`Signals`] on top |
//! | deadlines | [`Driver::wait`] with a [`Wait`], in the one call that also submits; never early |
//! | errors | [`SetupError`] with cause and remedy; results as [`std::io::Error`] with their errno |

#![warn(missing_docs)]

mod buffers;
mod chunk;
mod completion;
mod config;
mod datagram;
mod descriptor;
mod driver;
mod fork;
mod op;
pub mod resolve;
mod ring;
mod send_queue;
mod setup;
mod signal;
mod sync;
mod sys;
#[cfg(feature = "testing")]
pub mod testing;
mod wake;
mod watch;

pub use buffers::{Account, Received};
pub use chunk::Chunk;
pub use completion::{Completion, Interest, Outcome, Readiness, Token};
pub use config::{Counters, DriverConfig, DriverInfo, Features};
pub use datagram::Datagram;
pub use descriptor::{Descriptor, WeakDescriptor};
pub use driver::{Driver, Wait};
pub use op::OpKey;
pub use send_queue::SendQueue;
pub use setup::SetupError;
pub use signal::Signals;
pub use wake::DriverWaker;
pub use watch::WatchedFile;
