//! Connections and servers: what makes transports.
//!
//! ```text
//! create_server:     resolve -> bind -> listen -> accept* -> factory, transport
//! create_connection: resolve -> connect (one address after the other, or staggered) -> factory, transport
//! ```

mod client;
mod connect;
mod happy_eyeballs;
mod listener;
mod options;
mod sendfile;
mod server;
mod unix;

pub use self::connect::{ConnectFuture, Connector};
pub use self::options::{Listen, Target};
pub use self::server::Server;
pub use self::unix::{UnixListen, UnixTarget};
