//! Proxy: a network between a client and a server on this machine that can be cut.
//!
//! A cut is that of a cable: nobody is told. Connections stay open and silent, and new ones, which the system's own
//! listen queue completes, stay silent too. Healing delivers what was sent meanwhile, as TCP would by sending it again.

use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::Weak;
use std::thread;

use anyhow::Context;
use anyhow::Result;

use crate::server::connect;

/// How much is passed on in one piece.
const PIECE: usize = 64 * 1024;

/// A running proxy. Dropping it closes its port and all its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    wire: Arc<Wire>,
}

#[derive(Debug)]
struct Wire {
    target_port: u16,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    cut: bool,
    ended: bool,
    links: Vec<Weak<Link>>,
}

/// One connection's two halves. The server's is made when the wire is whole.
#[derive(Debug)]
struct Link {
    client: TcpStream,
    server: OnceLock<TcpStream>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and passes every connection on to `target_port` there, which need not
    /// accept any yet.
    ///
    /// # Errors
    ///
    /// If no port can be had.
    pub fn start(target_port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for a proxy")?;
        let port = listener.local_addr().context("the proxy's port is not known")?.port();
        let wire = Arc::new(Wire { target_port, state: Mutex::default(), changed: Condvar::new() });
        let accepting = Arc::clone(&wire);
        thread::spawn(move || accepting.accept(&listener));
        Ok(Self { port, wire })
    }

    /// Where clients connect, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts the wire: no byte passes, in either direction, and no end learns of it.
    pub fn cut(&self) {
        self.wire.state().cut = true;
    }

    /// Mends the wire: what was sent during the cut arrives.
    pub fn heal(&self) {
        self.wire.state().cut = false;
        self.wire.changed.notify_all();
    }

    /// Closes every connection, on both sides and also during a cut. New ones are accepted as before.
    pub fn drop_all(&self) {
        let links = std::mem::take(&mut self.wire.state().links);
        for link in links.iter().filter_map(Weak::upgrade) {
            link.close();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.wire.state().ended = true;
        self.wire.changed.notify_all();
        self.drop_all();
        // Wakes the thread that accepts, which then ends.
        drop(connect(self.port));
    }
}

impl Wire {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            let mut state = self.state();
            if state.ended {
                return;
            }
            let Ok(client) = client else { continue };
            let link = Arc::new(Link { client, server: OnceLock::new() });
            state.links.retain(|link| link.strong_count() > 0);
            state.links.push(Arc::downgrade(&link));
            drop(state);
            let wire = Arc::clone(self);
            thread::spawn(move || wire.carry(&link));
        }
    }

    /// One connection, from its acceptance to its end.
    fn carry(&self, link: &Link) {
        self.wait_until_whole();
        let Some(server) = connect(self.target_port) else {
            return link.close();
        };
        let server = link.server.get_or_init(|| server);
        thread::scope(|scope| {
            scope.spawn(|| self.pass(link, &link.client, server));
            self.pass(link, server, &link.client);
        });
    }

    /// Passes on what comes one way, and in the end that nothing more will.
    fn pass(&self, link: &Link, mut from: &TcpStream, mut to: &TcpStream) {
        let mut piece = vec![0; PIECE];
        loop {
            let read = from.read(&mut piece);
            self.wait_until_whole();
            match read {
                Ok(0) => {
                    // The other way may still be in use.
                    drop(to.shutdown(Shutdown::Write));
                    return;
                }
                Ok(length) if to.write_all(&piece[..length]).is_ok() => {}
                Ok(_) | Err(_) => return link.close(),
            }
        }
    }

    fn wait_until_whole(&self) {
        let mut state = self.state();
        while state.cut && !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn close(&self) {
        for half in [Some(&self.client), self.server.get()].into_iter().flatten() {
            // It may be closed already.
            drop(half.shutdown(Shutdown::Both));
        }
    }
}
