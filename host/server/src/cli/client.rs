//! The HTTP client: one host, one key, the host's answers as JSON or as an [`Error`].
//!
//! It follows no redirects (a key must not travel on), asks no proxy about hosts on this machine, and never prints the
//! key.

use std::time::Duration;

use reqwest::Method;
use reqwest::RequestBuilder;
use reqwest::Response;
use reqwest::StatusCode;
use reqwest::Url;
use secrecy::ExposeSecret as _;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::problem::Problem;

/// A host that does not take a connection within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longer than any answer of a host that is well; an upload may be compiled while we wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// The most that is asked of one page of a list.
const PAGE: usize = 200;

/// A host, seen with one key.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<SecretString>,
}

/// A page of a list.
#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Value>,
    #[serde(default)]
    next: Option<Value>,
}

impl Client {
    /// For the host at `url`, with a key or (for what needs none) without.
    pub fn open(url: &str, key: Option<SecretString>) -> Result<Self> {
        let base = parse_url(url)?;
        // A second installation is refused; whichever came first is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&base) {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|cause| Error::failed(format!("no HTTP client: {cause}")))?;
        Ok(Self { http, base, key })
    }

    /// The host's address, without a slash at its end.
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// A request to the path made of `segments`, each of them quoted as it must be.
    pub fn request(&self, method: Method, segments: &[&str], query: &[(&str, &str)]) -> Result<RequestBuilder> {
        let mut url = self.base.clone();
        {
            // Two names would be taken for steps in the path and silently lead elsewhere.
            if let Some(name) = segments.iter().find(|it| matches!(**it, "" | "." | "..")) {
                return Err(Error::Usage(format!("`{name}` is no name")));
            }
            let mut path = url.path_segments_mut().map_err(|()| Error::Usage("the URL has no path".to_owned()))?;
            path.pop_if_empty().extend(segments);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.expose_secret());
        }
        Ok(request)
    }

    /// Sends it; any answer is a success.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response> {
        request.send().await.map_err(|source| self.unreachable(source))
    }

    /// Sends it and reads JSON (null if the answer is empty); a refusal becomes an error.
    pub async fn call(&self, request: RequestBuilder) -> Result<Value> {
        let response = self.accepted(request).await?;
        let body = response.bytes().await.map_err(|source| self.unreachable(source))?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|_| self.foreign())
    }

    /// Sends it; a refusal becomes an error, the body is left to the caller.
    pub async fn accepted(&self, request: RequestBuilder) -> Result<Response> {
        let response = self.send(request.timeout(ANSWER_TIMEOUT)).await?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    /// `GET`, as JSON.
    pub async fn get(&self, segments: &[&str], query: &[(&str, &str)]) -> Result<Value> {
        self.call(self.request(Method::GET, segments, query)?).await
    }

    /// `POST` of JSON, with an answer in JSON.
    pub async fn post(&self, segments: &[&str], body: &Value) -> Result<Value> {
        self.call(self.request(Method::POST, segments, &[])?.json(body)).await
    }

    /// `PUT` of JSON, with an answer in JSON.
    pub async fn put(&self, segments: &[&str], body: &Value) -> Result<Value> {
        self.call(self.request(Method::PUT, segments, &[])?.json(body)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, segments: &[&str]) -> Result<Value> {
        self.call(self.request(Method::DELETE, segments, &[])?).await
    }

    /// The items of a list, page after page, at most `most` of them.
    pub async fn list(&self, segments: &[&str], query: &[(&str, &str)], most: usize) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        while items.len() < most {
            let limit = PAGE.min(most - items.len()).to_string();
            let mut query = query.to_vec();
            query.push(("limit", &limit));
            if let Some(after) = &after {
                query.push(("after", after));
            }
            let page = self.get(segments, &query).await?;
            let page: Page = serde_json::from_value(page).map_err(|_| self.foreign())?;
            items.extend(page.items);
            after = match page.next {
                None | Some(Value::Null) => break,
                Some(Value::String(next)) => Some(next),
                Some(other) => Some(other.to_string()),
            };
        }
        items.truncate(most);
        Ok(items)
    }

    /// Turns an answer that is no success into an error.
    pub async fn refusal(&self, response: Response) -> Error {
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        let Ok(mut problem) = serde_json::from_slice::<Problem>(&body) else {
            return self.foreign_status(status);
        };
        if problem.title.is_empty() && problem.detail.is_empty() {
            return self.foreign_status(status);
        }
        problem.status = status.as_u16();
        problem.docs = match problem.kind.as_str() {
            "" | "about:blank" => None,
            kind => self.base.join(kind).ok().map(String::from),
        };
        if status == StatusCode::UNAUTHORIZED && problem.hint.is_none() {
            let advice = match self.key {
                None => "give a key with --key or BULKHEAD_KEY",
                Some(_) => {
                    "is it the key of another host, or was it revoked? An operator makes a new one: `bulkhead key create TENANT`"
                }
            };
            problem.hint = Some(advice.to_owned());
        }
        Error::Refused(Box::new(problem))
    }

    fn unreachable(&self, source: reqwest::Error) -> Error {
        Error::Unreachable { url: self.url().to_owned(), refused: is_refused(&source), source }
    }

    /// Something answers, but it does not speak our language.
    fn foreign(&self) -> Error {
        Error::hinted(format!("{} does not answer like a Bulkhead host", self.url()), "check --url or BULKHEAD_URL")
    }

    fn foreign_status(&self, status: StatusCode) -> Error {
        Error::hinted(
            format!("{} answered {status} without a reason", self.url()),
            "is something else listening there, or a proxy in between? Check --url or BULKHEAD_URL",
        )
    }
}

/// True if nobody listens there.
fn is_refused(error: &reqwest::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<std::io::Error>().is_some_and(|it| it.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Checks an address; `localhost:8080` is taken for `http://localhost:8080`.
pub fn parse_url(text: &str) -> Result<Url> {
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&full).map_err(|cause| Error::Usage(format!("`{text}` is no URL: {cause}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(Error::Usage(format!("`{text}` is no URL of a host: it begins with http:// or https://")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::Usage(
            "the URL must not hold a password; give the key with --key or BULKHEAD_KEY".to_owned(),
        ));
    }
    Ok(url)
}

/// True if it is this machine.
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A client of a host that answers as these routes do.
#[cfg(test)]
pub async fn of(routes: axum::Router) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("because port 0 is free");
    let url = format!("http://{}", listener.local_addr().expect("because it is bound"));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Client::open(&url, None).expect("because the address is right")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Client {
        Client::open(url, None).expect("because the URL is well formed")
    }

    #[test]
    fn names_are_quoted_into_the_path() {
        let check = |base: &str, expected: &str| {
            let request = client(base).request(Method::GET, &["v1", "rules", "a/b ?"], &[("type", "a.*"), ("x", "&=")]);
            let request = request.expect("because the names are fine").build().expect("because it is whole");
            assert_eq!(request.url().as_str(), expected);
        };
        check("http://localhost:1", "http://localhost:1/v1/rules/a%2Fb%20%3F?type=a.*&x=%26%3D");
        check("https://x.example/bulkhead/", "https://x.example/bulkhead/v1/rules/a%2Fb%20%3F?type=a.*&x=%26%3D");
        for name in ["", ".", ".."] {
            assert!(client("http://localhost:1").request(Method::GET, &["v1", name], &[]).is_err());
        }
    }

    #[test]
    fn addresses_are_checked() {
        assert_eq!(client("localhost:8080").url(), "http://localhost:8080");
        for bad in ["ftp://x", "http://", "http://user:word@x", "http://a b"] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
        for (url, expected) in
            [("http://127.0.0.2:1", true), ("http://[::1]:1", true), ("localhost", true), ("http://10.0.0.1", false)]
        {
            assert_eq!(is_loopback(&parse_url(url).expect("because it is well formed")), expected, "{url}");
        }
    }

    #[tokio::test]
    async fn nobody_listening_is_told_apart() {
        // Port 1 of this machine is nobody's.
        let error = client("http://127.0.0.1:1").get(&["healthz"], &[]).await.expect_err("because nobody listens");
        let text = error.render(crate::cli::paint::Paint::plain());
        assert!(text.starts_with("error: no host listens on http://127.0.0.1:1\n"), "{text}");
    }
}
