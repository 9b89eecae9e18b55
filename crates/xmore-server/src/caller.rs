//! Who sends a request, as far as shared limits need it: by key where keys are asked for, else by address.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::Extensions;

/// Whose requests share the limits of one caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    /// The server itself.
    Server,
    /// The holder of this one of the keys.
    Key(usize),
    /// A client at this [`address`].
    Address(IpAddr),
}

/// Where a connection comes from; an extension of its requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address(pub(crate) IpAddr);

impl Caller {
    /// The caller of a request that the middleware admitted.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        let address = || extensions.get::<Address>().map(|Address(address)| Self::Address(*address));
        extensions.get::<Self>().copied().or_else(address).unwrap_or(Self::Server)
    }
}

/// An address as it is counted: of IPv6 the network, since one machine has all addresses of it.
pub(crate) fn address(of: IpAddr) -> IpAddr {
    match of.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_is_one_caller() {
        for (of, counted) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("::1", "::1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            assert_eq!(address(of.parse().unwrap()), counted.parse::<IpAddr>().unwrap());
        }
    }
}
