//! What only io_uring has: the ring, whose two queues are shared with the kernel, and the requests by which ops are asked for.

pub(crate) mod request;
pub(crate) mod ring;
