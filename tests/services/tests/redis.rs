//! A real server: it keeps what it was told to keep, and nothing else.

use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use bulkhead_services::AppendOnly;
use bulkhead_services::Redis;
use bulkhead_services::RedisOptions;
use bulkhead_services::shared;

/// One command, one answer without its line end.
fn ask(url: &str, command: &str) -> Result<String> {
    let address = url.strip_prefix("redis://").and_then(|rest| rest.strip_suffix('/')).context("not an address")?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // With QUIT the server ends the connection, and so the answer.
    write!(stream, "{command}\r\nQUIT\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.strip_suffix("+OK\r\n").context("the answer to QUIT is missing")?.trim_end().replace("\r\n", " "))
}

#[test]
fn the_shared_one_answers() -> Result<()> {
    let redis = shared::redis()?;
    assert_eq!(ask(redis.url(), "PING")?, "+PONG");
    assert_eq!(shared::redis()?.url(), redis.url());
    Ok(())
}

#[test]
fn it_keeps_what_it_was_told_to_keep() -> Result<()> {
    for (append_only, kept) in
        [(AppendOnly::None, "$-1"), (AppendOnly::EverySecond, "$5 value"), (AppendOnly::Always, "$5 value")]
    {
        let redis = Redis::start(RedisOptions { append_only })?;
        assert_eq!(ask(&redis.url(), "SET key value")?, "+OK");
        redis.kill()?;
        assert!(ask(&redis.url(), "PING").is_err());
        redis.start_again()?;
        assert_eq!(ask(&redis.url(), "GET key")?, kept, "{append_only:?} after a crash");
        redis.stop()?;
        assert!(redis.pid().is_err());
        redis.start_again()?;
        assert_eq!(ask(&redis.url(), "GET key")?, kept, "{append_only:?} after a stop");
        redis.flush_all()?;
        assert_eq!(ask(&redis.url(), "DBSIZE")?, ":0");
        let folder = redis.log().parent().expect("because the log lies in the folder").to_owned();
        drop(redis);
        assert!(!folder.exists(), "{} is still there", folder.display());
    }
    Ok(())
}
