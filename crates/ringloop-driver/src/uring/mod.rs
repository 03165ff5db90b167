//! What only io_uring has: the ring, whose two queues are shared with the kernel, its table of files, and the requests by which ops
//! are asked for.

mod files;
pub(crate) mod request;
pub(crate) mod ring;
