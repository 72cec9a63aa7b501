//! Binding listening sockets.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::Accept;

/// Binds `address`: one socket for each of `workers` with [`Accept::Reuseport`], else one for all.
///
/// # Errors
/// When the address is taken or may not be used. SO_REUSEPORT would hide that another process listens there, so the
/// address is first bound without it.
pub fn bind(
    address: SocketAddr,
    accept: Accept,
    workers: usize,
    backlog: u32,
) -> io::Result<Vec<std::net::TcpListener>> {
    let alone = open(address, false, backlog)?;
    if accept == Accept::Dispatch || workers <= 1 {
        return Ok(vec![alone]);
    }
    // With port 0 the kernel chose one; the workers share it.
    let address = alone.local_addr()?;
    drop(alone);
    (0..workers).map(|_| open(address, true, backlog)).collect()
}

fn open(address: SocketAddr, shared: bool, backlog: u32) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_port_that_strangers_cannot_take() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let sockets = bind(any, Accept::Reuseport, 3, 16).unwrap();
        let ports: std::collections::HashSet<u16> =
            sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        assert_eq!((sockets.len(), ports.len()), (3, 1));
        let taken = sockets.first().unwrap().local_addr().unwrap();
        let error = bind(taken, Accept::Reuseport, 3, 16).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(bind(any, Accept::Dispatch, 3, 16).unwrap().len(), 1);
    }
}
