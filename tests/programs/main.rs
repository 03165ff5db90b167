//! The examples as a user meets them: started as programs, over real sockets.

mod containers;
mod manners;
mod memory;
mod program;
mod python;
mod sockets;
mod system_calls;
