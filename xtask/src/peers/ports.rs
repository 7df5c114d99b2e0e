//! Ports of loopback, below those that the kernel gives to callers.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::bail;

/// From where on; callers get theirs from 32768 on (`ip_local_port_range`).
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// Hands out each port once.
#[derive(Debug)]
pub(crate) struct Ports {
    next: u16,
}

/// Where a peer listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listens {
    pub(crate) h1: u16,
    pub(crate) h2c: u16,
    pub(crate) tls: u16,
    pub(crate) mtls: u16,
    pub(crate) tcp: u16,
    pub(crate) admin: u16,
}

// === impl Ports ===

impl Ports {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// A port on which nobody listens.
    ///
    /// # Errors
    ///
    /// If there is none left.
    pub(crate) fn take(&mut self) -> anyhow::Result<u16> {
        while self.next < LAST {
            let port = self.next;
            self.next += 1;
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(port);
            }
        }
        bail!("no port of {FIRST} to {LAST} is free")
    }

    pub(crate) fn listens(&mut self) -> anyhow::Result<Listens> {
        Ok(Listens {
            h1: self.take()?,
            h2c: self.take()?,
            tls: self.take()?,
            mtls: self.take()?,
            tcp: self.take()?,
            admin: self.take()?,
        })
    }
}
