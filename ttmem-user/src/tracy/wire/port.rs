//! The port that viewers come to.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use super::peer;

/// How many ports are tried, from the one that was asked for on; as many as Tracy tries.
const TRIES: u16 = 20;

/// A port that is listened on.
#[derive(Debug)]
pub struct Port {
    /// Where viewers come from.
    pub listener: TcpListener,
    /// Its address.
    pub address: SocketAddr,
    /// Why it is not the one that was asked for.
    pub instead: Option<String>,
}

/// No port can be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for Tracy on {address}{holder}: choose another with --tracy=ADDR:PORT")]
pub struct PortError {
    address: SocketAddr,
    holder: String,
    source: io::Error,
}

/// Listens on the first free port from the one that is asked for on.
pub fn listen(wanted: SocketAddr) -> Result<Port, PortError> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for offset in 0..TRIES {
        let Some(port) = wanted.port().checked_add(offset) else { break };
        let address = SocketAddr::new(wanted.ip(), port);
        match TcpListener::bind(address) {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(address);
                let instead =
                    (offset > 0).then(|| format!("{} is taken{}", wanted.port(), by(wanted)));
                return Ok(Port { listener, address, instead });
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            Err(source) => {
                return Err(PortError { address, holder: String::new(), source });
            }
        }
    }
    Err(PortError {
        address: wanted,
        holder: format!(" or the {TRIES} ports from there{}", by(wanted)),
        source: last,
    })
}

fn by(address: SocketAddr) -> String {
    peer::holder(address.port()).map_or_else(String::new, |holder| format!(" by {holder}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_passed_over_and_its_holder_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let wanted = taken.local_addr().unwrap();
        let port = listen(wanted).unwrap();
        assert!(port.address.port() > wanted.port());
        let why = port.instead.unwrap();
        assert!(why.contains(&format!("by process {}", std::process::id())), "{why}");
    }

    #[test]
    fn a_foreign_address_is_an_error() {
        let error = listen("192.0.2.1:8086".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("192.0.2.1:8086"), "{error}");
    }
}
