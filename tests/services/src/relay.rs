//! Relay: a connection to a Postgres that counts round trips: what a client sends and waits for an answer to.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;

use anyhow::Context;
use anyhow::Result;

/// The messages that ask for an answer: Sync (after Parse, Bind, Execute) and a simple Query.
const ASKING: [u8; 2] = [b'S', b'Q'];
/// What a client's first message may ask for, which the server answers with no.
const ENCRYPTION: u32 = 80_877_103;

/// A running relay. It listens until its process ends.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    trips: Arc<AtomicU64>,
}

impl Relay {
    /// Listens on a free port of 127.0.0.1 and passes everything on to the server at `target_port` there.
    ///
    /// # Errors
    ///
    /// If no port can be had.
    pub fn start(target_port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for a relay")?;
        let port = listener.local_addr().context("the relay's port is not known")?.port();
        let trips = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&trips);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                // A connection ends with either end's.
                thread::spawn(move || drop(carry(client, target_port, &counter)));
            }
        });
        Ok(Self { port, trips })
    }

    /// Where clients connect, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Round trips so far.
    #[must_use]
    pub fn trips(&self) -> u64 {
        self.trips.load(Ordering::Relaxed)
    }
}

fn carry(mut client: TcpStream, target_port: u16, trips: &AtomicU64) -> io::Result<()> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, target_port))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut answers, mut back) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        drop(io::copy(&mut answers, &mut back));
        back.shutdown(Shutdown::Both)
    });
    let asked = ask(&mut client, &mut server, trips);
    server.shutdown(Shutdown::Both)?;
    asked
}

/// Passes messages on until one of the two ends.
fn ask(client: &mut TcpStream, server: &mut TcpStream, trips: &AtomicU64) -> io::Result<()> {
    let mut began = false;
    loop {
        // The first messages have no type.
        let mut message = vec![0; if began { 5 } else { 4 }];
        client.read_exact(&mut message)?;
        let [.., a, b, c, d] = *message else { return Ok(()) };
        let (kind, length, head) = (message[0], u32::from_be_bytes([a, b, c, d]), message.len());
        message.resize(head + length.saturating_sub(4) as usize, 0);
        client.read_exact(&mut message[head..])?;
        if began && ASKING.contains(&kind) {
            trips.fetch_add(1, Ordering::Relaxed);
        }
        began |= message.get(4..8) != Some(&ENCRYPTION.to_be_bytes());
        server.write_all(&message)?;
    }
}
