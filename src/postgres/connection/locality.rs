//! Where a server is, as seen from here.
//!
//! * In: nothing.
//! * Out: [`Locality`], which decides how the socket is read.
//! * Never: an address.

/// The server's distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locality {
    /// Over the loopback interface: a closed receive window costs no round trip worth mentioning.
    SameHost,
    /// Behind a Unix socket: no segments, and a small buffer that must not stay full.
    Socket,
    /// Over a network.
    Network,
}
