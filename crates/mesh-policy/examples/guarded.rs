//! A service that lets GET through, and of the rest only what comes with a token.

use http::{HeaderName, Request, Response};
use mesh_core::BoxError;
use mesh_core::model::{
    Authz, AuthzAction, AuthzPolicy, AuthzRules, Fact, HeaderKey, HeaderMatch, Predicate,
    StringMatch,
};
use mesh_policy::AuthzLayer;
use tower::{ServiceBuilder, ServiceExt, service_fn};

fn header(key: HeaderKey, value: &str) -> Predicate {
    let value = StringMatch::Exact(value.into());
    Predicate::Fact(Fact::Header(HeaderMatch::text(key, value)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let token = HeaderKey::Header(HeaderName::from_static("x-token"));
    let policies = [
        AuthzPolicy::new("read", header(HeaderKey::Method, "GET"), Predicate::Always),
        AuthzPolicy::new("write", Predicate::Always, header(token, "secret")),
    ];
    let mut authz = Authz::default();
    authz.rules = Some(AuthzRules::new(AuthzAction::Allow, policies));

    let service = ServiceBuilder::new()
        .layer(AuthzLayer::fixed([authz]))
        .service(service_fn(|_: Request<()>| async {
            Ok::<_, BoxError>(Response::new(()))
        }));
    for request in [
        Request::get("/cart").body(())?,
        Request::post("/cart").body(())?,
        Request::post("/cart")
            .header("x-token", "secret")
            .body(())?,
    ] {
        let what = format!("{} {}", request.method(), request.uri());
        match service.clone().oneshot(request).await {
            Ok(_) => println!("{what}: allowed"),
            Err(error) => println!("{what}: {} {error}", error.status()),
        }
    }
    Ok(())
}
