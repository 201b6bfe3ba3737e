//! A network that is cut tells nobody, and delivers when it is mended.

use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use bulkhead_services::Proxy;

/// What must come comes well within it.
const LIMIT: Duration = Duration::from_secs(10);

/// How long we look that nothing comes.
const SILENCE: Duration = Duration::from_millis(200);

/// A server that sends back what it gets; gives its port.
fn echo() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || drop(std::io::copy(&mut &stream, &mut &stream)));
        }
    });
    Ok(port)
}

fn client(proxy: &Proxy) -> Result<TcpStream> {
    Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()))?)
}

fn read(mut stream: &TcpStream, length: usize) -> Result<Vec<u8>> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn is_silent(mut stream: &TcpStream) -> Result<bool> {
    stream.set_read_timeout(Some(SILENCE))?;
    let result = stream.read(&mut [0; 16]);
    Ok(result.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)))
}

fn is_closed(mut stream: &TcpStream) -> Result<bool> {
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(match stream.read(&mut [0; 16]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    })
}

#[test]
fn a_cut_is_silent_and_mending_delivers() -> Result<()> {
    let proxy = Proxy::start(echo()?)?;
    let mut old = client(&proxy)?;
    old.write_all(b"one")?;
    assert_eq!(read(&old, 3)?, b"one");

    proxy.cut();
    old.write_all(b"two")?;
    let mut new = client(&proxy)?;
    new.write_all(b"three")?;
    assert!(is_silent(&old)?);
    assert!(is_silent(&new)?);

    proxy.heal();
    assert_eq!(read(&old, 3)?, b"two");
    assert_eq!(read(&new, 5)?, b"three");

    // An end is passed on in order, after the last bytes.
    new.write_all(b"four")?;
    new.shutdown(std::net::Shutdown::Write)?;
    assert_eq!(read(&new, 4)?, b"four");
    assert!(is_closed(&new)?);
    Ok(())
}

#[test]
fn all_are_dropped_also_during_a_cut() -> Result<()> {
    let proxy = Proxy::start(echo()?)?;
    let mut old = client(&proxy)?;
    old.write_all(b"one")?;
    assert_eq!(read(&old, 3)?, b"one");
    proxy.drop_all();
    assert!(is_closed(&old)?);

    let mut old = client(&proxy)?;
    old.write_all(b"two")?;
    assert_eq!(read(&old, 3)?, b"two");
    proxy.cut();
    old.write_all(b"three")?;
    proxy.drop_all();
    assert!(is_closed(&old)?);

    proxy.heal();
    let mut new = client(&proxy)?;
    new.write_all(b"four")?;
    assert_eq!(read(&new, 4)?, b"four");

    let port = proxy.port();
    drop(proxy);
    assert!(is_closed(&new)?);
    // The thread that accepts ends a moment later.
    let until = std::time::Instant::now() + LIMIT;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
        assert!(std::time::Instant::now() < until, "the port is still open");
    }
    Ok(())
}

#[test]
fn much_passes_whole_and_a_dead_server_is_no_silence() -> Result<()> {
    let proxy = Proxy::start(echo()?)?;
    let stream = client(&proxy)?;
    let sent: Vec<u8> = (0..=u8::MAX).cycle().take(3_000_000).collect();
    thread::scope(|scope| {
        let writer = scope.spawn(|| (&stream).write_all(&sent));
        let same = read(&stream, sent.len())? == sent;
        writer.join().expect("because it does not panic")?;
        assert!(same, "what came back is not what was sent");
        anyhow::Ok(())
    })?;

    // A port that was free a moment ago: nobody listens on it now.
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let proxy = Proxy::start(nobody)?;
    assert!(is_closed(&client(&proxy)?)?);
    Ok(())
}
