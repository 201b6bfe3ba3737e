//! The data plane's routes, on the embedded store and a flow at work.

mod hostile;
mod publish;
mod quotas;
mod reading;
mod releases;
mod signatures;
mod stream;
mod trying;
mod upload;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::Request;
use axum::http::StatusCode;
use axum::response::Response;
use bulkhead_domain::clock::Clock;
use bulkhead_domain::clock::SystemClock;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::proof::ReleasePolicy;
use bulkhead_flow::Flow;
use bulkhead_flow::Options;
use bulkhead_flow::Parts;
use bulkhead_flow::deliver;
use bulkhead_flow::dispatch;
use bulkhead_flow::egress::Egress;
use bulkhead_flow::egress::EgressOptions;
use bulkhead_flow::inbox;
use bulkhead_flow::keeper;
use bulkhead_flow::sink::Outlets;
use bulkhead_flow::source::Supervisor;
use bulkhead_flow::vault::Kek;
use bulkhead_flow::vault::Vault;
use bulkhead_sandbox::Compiler;
use bulkhead_sandbox::Sandbox;
use bulkhead_store::Store;
use bulkhead_store::catalogue::Room;
use bulkhead_store::catalogue::Tenant;
use bulkhead_store::catalogue::TenantState;
use bulkhead_store::sqlite;
use bulkhead_store::sqlite::Sqlite;
use bytes::Bytes;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::api;
use crate::api::cursor::Cursors;
use crate::api::places::Places;
use crate::api::state::Api;
use crate::api::state::State;
use crate::api::state::Streams;
use crate::api::upload::Uploads;
use crate::auth::Keyring;
use crate::config::ApiLimits;
use crate::install::Installer;
use crate::install::Terms;
use crate::signature::Trust;

/// Nothing that is waited for takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Little, so that it is full soon.
const ROOM: Room = Room { plugins: 8, versions: 5, retired: 2, storage: None };

/// A host without its listener.
pub struct Host {
    pub api: Api,
    router: Router,
    _flow: Flow,
    folder: tempfile::TempDir,
}

/// A tenant, with a key.
pub struct User<'h> {
    host: &'h Host,
    pub tenant: Tenant,
    pub key: String,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Host {
    pub async fn start() -> Self {
        Self::trusting(Trust::default()).await
    }

    /// One that asks for signatures so.
    pub async fn trusting(trust: Trust) -> Self {
        Self::with(trust, ReleasePolicy::default()).await
    }

    /// One that asks this of all versions.
    pub async fn asking(asks: ReleasePolicy) -> Self {
        Self::with(Trust::default(), asks).await
    }

    async fn with(trust: Trust, asks: ReleasePolicy) -> Self {
        let limits = inbox::Limits { event_bytes: 1_000, batch_events: 3, depth: 8, ..inbox::Limits::default() };
        let folder = tempfile::tempdir().expect("because there is room");
        let sqlite = Sqlite::open(sqlite::Options::new(folder.path().join("store.db")));
        let store: Store = Arc::new(sqlite.await.expect("because nobody else has it open"));
        let options = bulkhead_sandbox::Options::new(folder.path().join("artefacts"), [1; 32]);
        let options = bulkhead_sandbox::Options { compiler: Compiler::InProcess, ..options };
        let sandbox = Sandbox::open(options).expect("because the pool fits");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let vault = Arc::new(Vault::new(Kek::new([2; 32])));
        let outlets = Outlets { egress: Egress::new(EgressOptions::default()), files: None, redis: None, log: false };
        let parts = Parts {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            sandbox: sandbox.clone(),
            vault: Arc::clone(&vault),
            outlets: outlets.clone(),
            effect_secret: [3; 32],
            bus: Default::default(),
            shared: None,
        };
        let look = Duration::from_millis(200);
        let options = Options {
            inbox: limits,
            descendants: 100,
            ceiling: bulkhead_domain::policy::limits::Limits::default(),
            grants: Default::default(),
            quotas: Default::default(),
            dispatch: dispatch::Options::default(),
            deliver: deliver::Options::default(),
            keeper: keeper::Options {
                node: "test".to_owned(),
                lease: Duration::from_secs(30),
                look,
                shared: false,
                retention: keeper::Retention::default(),
            },
        };
        let flow = Flow::start(options, parts).await.expect("because the store works");
        let directory = Arc::clone(&flow.directory);
        let installer = Installer::new(
            Arc::clone(&store),
            sandbox.clone(),
            Arc::clone(&directory),
            flow.dispatch.clone(),
            Arc::clone(&clock),
            Terms { trust, asks, room: ROOM, quotas: Default::default() },
        );
        let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder().handle();
        let sources = Supervisor::new(
            Vec::new(),
            "test".to_owned(),
            Arc::clone(&store),
            flow.inbox.clone(),
            Arc::clone(&flow.fences),
        );
        let api = Api::new(State {
            keyring: Keyring::new(Arc::clone(&store), &[4; 32], None, Default::default()),
            store,
            clock,
            cursors: Cursors::new(&[5; 32]),
            inbox: flow.inbox.clone(),
            limiter: flow.limiter.clone(),
            dispatch: flow.dispatch.clone(),
            deliver: flow.deliver.clone(),
            live: flow.live.clone(),
            directory,
            vault,
            outlets,
            sandbox,
            installer,
            previewer: flow.previewer.clone(),
            limits: ApiLimits {
                upload_bytes: 65 << 20,
                uploads: 8,
                room: ROOM,
                document_bytes: 1 << 20,
                streams: 2,
                requests: 64,
            },
            metrics,
            places: Places::new(64, "requests"),
            uploads: Uploads::open(&folder.path().join("uploads"), 8).expect("because there is room"),
            trials: crate::api::trials::Trials::default(),
            streams: Streams::default(),
            ending: CancellationToken::new(),
            paused: AtomicBool::new(false),
            switch: Default::default(),
            bus: Default::default(),
            shared: false,
            node: "test".to_owned(),
            sources,
        });
        Self { router: api::router(api.clone()), api, _flow: flow, folder }
    }

    /// A new tenant with a key for everything.
    pub async fn tenant(&self, name: &str) -> User<'_> {
        let made = self.api.store.operator_create_tenant(&format!("ten_{name}"), name, self.api.now()).await;
        let tenant = made.expect("because the name is free");
        self.user(tenant, &["*"]).await
    }

    /// A key of the operator.
    pub async fn operator(&self) -> User<'_> {
        let made = self.api.keyring.create(None, vec!["*".to_owned()], String::new(), self.api.now()).await;
        let (_, key) = made.expect("because the store works");
        let nobody = Tenant {
            id: TenantId(0),
            uid: String::new(),
            name: String::new(),
            state: TenantState::Active,
            settings: 0,
            created: self.api.now(),
            quotas: Default::default(),
            policy: Default::default(),
            asks: Default::default(),
        };
        User { host: self, tenant: nobody, key: key.expose_secret().to_owned() }
    }

    /// A key of a tenant.
    pub async fn user(&self, tenant: Tenant, scopes: &[&str]) -> User<'_> {
        let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
        let made = self.api.keyring.create(Some(tenant.id), scopes, String::new(), self.api.now()).await;
        let (_, key) = made.expect("because the store works");
        User { host: self, tenant, key: key.expose_secret().to_owned() }
    }
}

impl User<'_> {
    /// Sends a request; the answer's body is not read yet.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("authorization", format!("Bearer {}", self.key));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).expect("because all headers are valid");
        self.host.router.clone().oneshot(request).await.expect("because a router always answers")
    }

    pub async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let response = self.send(method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("because the answer is whole");
        Answer { status: parts.status, headers: parts.headers, bytes }
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path, &[], "").await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", answer.bytes);
        answer.json()
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.call("POST", path, &[("content-type", "application/json")], body.to_string()).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", answer.bytes);
        answer.json()
    }

    /// Publishes one event.
    pub async fn publish(&self, kind: &str, id: &str, fields: Value) {
        let mut event = event(kind, id);
        let further = fields.as_object().expect("because fields are an object").clone();
        event.as_object_mut().expect("because an event is an object").extend(further);
        let headers = [("content-type", "application/cloudevents+json")];
        let answer = self.call("POST", "/v1/events", &headers, event.to_string()).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.bytes);
    }

    /// Makes these the tenant's rules.
    pub async fn rules(&self, rules: Value) {
        let store = &self.host.api.store;
        let number = store.rules(self.tenant.id).await.expect("because the store works").number;
        let put = store.put_rules(self.tenant.id, number, &rules.to_string(), "test", "", self.host.api.now()).await;
        put.expect("because nobody else changes them");
        self.host.api.changed(self.tenant.id).await;
    }

    /// Waits until an answer is as it should be.
    pub async fn until(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let answer = self.get(path).await;
            if fits(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < PATIENCE, "{path} stays {answer:#}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {:?}", self.bytes))
    }

    /// The code of a problem, which has to be one in all its parts.
    pub fn code(&self) -> String {
        let problem = self.json();
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(problem["status"], self.status.as_u16());
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
        let code = problem["code"].as_str().expect("because a problem has a code").to_owned();
        assert_eq!(problem["type"], format!("/docs/errors/{code}"));
        code
    }
}

pub fn event(kind: &str, id: &str) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/test", "type": kind})
}

/// The texts under a name, in the items of a list.
pub fn column(list: &Value, name: &str) -> Vec<String> {
    let items = list["items"].as_array().expect("because a list has items");
    items.iter().map(|item| item[name].as_str().expect("because it is a text").to_owned()).collect()
}
