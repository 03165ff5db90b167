//! What only io_uring has: the ring, whose two queues are shared with the kernel, its table of files, the requests by which ops
//! are asked for, and polls that wait quietly.

mod files;
pub(crate) mod quiet;
pub(crate) mod request;
pub(crate) mod ring;
