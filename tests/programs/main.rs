//! The examples as a user meets them: started as programs, over real sockets.

mod manners;
mod program;
mod python;
mod system_calls;
