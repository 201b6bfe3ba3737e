//! A relay before the server that counts round trips: what a client sends and waits for an answer to.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::io::copy;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use crate::Failure;

/// The messages that ask for an answer: Sync (after Parse, Bind, Execute) and a simple Query.
const ASKING: [u8; 2] = [b'S', b'Q'];

/// Listens on a port, passes all on to `target_port`, and counts.
pub async fn start(target_port: u16) -> Result<(u16, Arc<AtomicU64>), Failure> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, target_port, Arc::clone(&counter)));
        }
    });
    Ok((port, count))
}

async fn carry(client: TcpStream, target_port: u16, counter: Arc<AtomicU64>) -> std::io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", target_port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
    let mut began = false;
    loop {
        // The first messages have no type: a question for encryption, which is answered with no, and the start.
        let kind = if began { Some(from_client.read_u8().await?) } else { None };
        let length = from_client.read_u32().await?;
        let mut rest = vec![0; length.saturating_sub(4) as usize];
        from_client.read_exact(&mut rest).await?;
        began |= kind.is_none() && rest.get(..4) != Some(&80_877_103_u32.to_be_bytes());
        if kind.is_some_and(|kind| ASKING.contains(&kind)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(kind) = kind {
            to_server.write_u8(kind).await?;
        }
        to_server.write_u32(length).await?;
        to_server.write_all(&rest).await?;
    }
}
