//! Documentation that the host serves itself, and that needs nothing from elsewhere: the OpenAPI document, a page to read
//! it and try it, a page for each kind of problem, and the JSON Schemas of what plugin authors write.

use axum::Router;
use axum::extract::Path;
use axum::http::HeaderValue;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::openapi::OpenApi;
use utoipa::openapi::OpenApiBuilder;
use utoipa::openapi::info::Info;
use utoipa::openapi::security::HttpAuthScheme;
use utoipa::openapi::security::HttpBuilder;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::security::SecurityScheme;
use utoipa_swagger_ui::SwaggerUi;

use crate::api::code::Code;
use crate::api::problem::Problem;
use crate::api::state::Api;
use crate::fixture;
use crate::fixture::Fixture;
use crate::manifest::raw;

/// Pages have styles of their own and nothing else that could run; the reader of the OpenAPI document brings its scripts.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const ABOUT: &str = "Events in, tenants' plugins and rules over them, effects out: each exactly once.\n\n\
    Every call carries `Authorization: Bearer KEY`; a tenant's key begins with `bhk_`, an operator's with `bho_`. \
    Errors are `application/problem+json` (RFC 9457); their `type` leads to a page of this host. \
    Lists give `items` and `next`; `?after=` with that `next` gives the next page.";

/// The document before any route is in it.
pub fn openapi() -> OpenApi {
    let mut info = Info::new("Bulkhead", env!("CARGO_PKG_VERSION"));
    info.description = Some(ABOUT.to_owned());
    let mut openapi = OpenApiBuilder::new().info(info).build();
    let key = SecurityScheme::Http(
        HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A tenant's or an operator's key")).build(),
    );
    openapi.components.get_or_insert_with(Default::default).add_security_scheme("key", key);
    openapi.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], _>("key", [])]);
    openapi
}

/// The routes.
pub fn routes(openapi: OpenApi) -> Router<Api> {
    let ui: Router<Api> = SwaggerUi::new("/docs").url("/openapi.json", openapi).into();
    Router::new()
        .route("/", get(async || axum::response::Redirect::temporary("/docs")))
        .route("/docs/errors", get(problems))
        .route("/docs/errors/{code}", get(problem))
        .route(raw::SCHEMA_PATH, get(async || axum::Json(raw::schema::<raw::Raw>())))
        .route(fixture::SCHEMA_PATH, get(async || axum::Json(raw::schema::<Fixture>())))
        .merge(ui)
        .layer(SetResponseHeaderLayer::overriding(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)))
}

/// A page about a kind of problem.
async fn problem(Path(code): Path<String>) -> Response {
    match Code::ALL.iter().find(|known| known.text() == code) {
        Some(code) => html(code.title(), &rendered(code.page())),
        None if code == "run-codes" => html("Codes of runs", &rendered(RUN_CODES)),
        None => Problem::not_found("page about a problem", &code).into_response(),
    }
}

/// What stands in the `code` of a failed run or delivery.
const RUN_CODES: &str = include_str!("../../../../docs/errors/run-codes.md");

/// All of them.
async fn problems() -> Response {
    let mut list =
        String::from("<h1>Problems</h1>\n<p>What the host answers when it does not do what it is asked.</p>\n<ul>\n");
    for code in Code::ALL {
        let (text, title, status) = (code.text(), code.title(), code.status().as_u16());
        list.push_str(&format!("<li><a href=\"/docs/errors/{text}\">{text}</a> ({status}): {title}</li>\n"));
    }
    list.push_str("</ul>\n<p><a href=\"/docs/errors/run-codes\">Codes of failed runs and deliveries</a></p>\n");
    html("Problems", &list)
}

fn rendered(markdown: &str) -> String {
    let mut out = String::new();
    let options = pulldown_cmark::Options::ENABLE_TABLES;
    pulldown_cmark::html::push_html(&mut out, pulldown_cmark::Parser::new_ext(markdown, options));
    out
}

fn html(title: &str, body: &str) -> Response {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title} - Bulkhead</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<nav><a href=\"/docs\">API</a> <a href=\"/docs/errors\">Problems</a></nav>\n\
         <main>\n{body}</main>\n</body>\n</html>\n"
    );
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
nav a { margin-right: 1rem; }
code, pre { font: 0.9em/1.45 ui-monospace, monospace; }
pre { padding: 0.8rem 1rem; overflow-x: auto; border: 1px solid color-mix(in srgb, currentColor 20%, transparent); border-radius: 6px; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { text-align: left; vertical-align: top; padding: 0.3rem 0.8rem 0.3rem 0; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_that_is_about_it() {
        for code in Code::ALL {
            let page = code.page();
            assert!(page.starts_with("# "), "{}", code.text());
            assert!(page.contains(&code.status().as_u16().to_string()), "{} says its status", code.text());
            assert!(page.contains("## What to do"), "{}", code.text());
        }
    }
}
