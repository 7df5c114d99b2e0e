//! Ports for those who cannot be told to take any that is free.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that the kernel gives to outgoing connections, or one of these could take a port
/// before we do.
const PORTS: std::ops::Range<u16> = 30_100..32_700;

/// An address that nobody uses, and that no other test gets while this process lives: whoever has
/// it holds the same port of UDP, where nobody listens.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id().wrapping_mul(37);
    for _ in 0..PORTS.len() {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let count = u32::from(PORTS.end - PORTS.start);
        // Less than the number of ports, so it fits.
        let offset = (start.wrapping_add(step) % count) as u16;
        let address = SocketAddr::from(([127, 0, 0, 1], PORTS.start + offset));
        let Ok(claim) = UdpSocket::bind(address) else {
            continue;
        };
        if TcpListener::bind(address).is_ok() {
            // It is given back with the process.
            std::mem::forget(claim);
            return address;
        }
    }
    panic!("no free port in {PORTS:?}")
}
