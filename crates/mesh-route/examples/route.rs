//! Routes a few requests by a small table, tells why they went where they went, and answers them
//! through the layers.

use http::Request;
use mesh_core::model::{
    Action, Cluster, Forward, HeaderKey, HeaderMatch, PathRewrite, Redirect, RouteTable, Rule,
    SnapshotBuilder, StringMatch, VirtualHost,
};
use mesh_core::{BoxError, Error, Exchange, Publisher};
use mesh_route::{EditLayer, Head, ReplyLayer, RespondLayer, RouteLayer, explain};
use tower::{ServiceBuilder, ServiceExt, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    // Jason sees v2; the old catalogue is the new one; plain `/admin` moves to https.
    let mut jason = Rule::prefix_to("/", "reviews-v2");
    jason.name = "jason".into();
    jason.condition.headers.push(HeaderMatch::text(
        HeaderKey::Header("end-user".parse()?),
        StringMatch::Exact("jason".into()),
    ));
    let mut forward = Forward::to("reviews-v1");
    forward.path = PathRewrite::Prefix("/newcatalog".into());
    let mut catalog = Rule::prefix_to("/wpcatalog", "reviews-v1");
    catalog.action = Action::Forward(forward);
    let mut secure = Redirect::default();
    secure.scheme = Some("https".into());
    let mut admin = Rule::prefix_to("/admin", "");
    admin.action = Action::Redirect(secure);

    let host = VirtualHost::new("reviews", ["reviews", "reviews:9080"])
        .rule(admin)
        .rule(jason)
        .rule(catalog)
        .rule(Rule::prefix_to("/", "reviews-v1"));
    let mut builder = SnapshotBuilder::new();
    builder.routes(RouteTable::new("http").host(host));
    for name in ["reviews-v1", "reviews-v2"] {
        builder.cluster(Cluster::new(name));
    }
    let (snapshot, _) = builder.build()?;
    mesh_route::prepare(&snapshot);
    let publisher = Publisher::from_arc(snapshot.clone());

    let service = ServiceBuilder::new()
        .layer(ReplyLayer::new())
        .layer(RouteLayer::new(publisher.feed()).table("http"))
        .layer(EditLayer::per_route())
        .layer(RespondLayer::per_route())
        .service(service_fn(|request: Request<()>| async move {
            let cluster = Exchange::of(&request).and_then(Exchange::cluster);
            let cluster = cluster.map(|cluster| cluster.config().name.to_string());
            println!("  -> {} at {}", request.uri(), cluster.unwrap_or_default());
            Ok::<_, Error>(http::Response::new(String::new()))
        }));
    for (uri, user) in [
        ("http://reviews:9080/reviews/1", "jason"),
        ("http://reviews:9080/wpcatalog/1?page=2", "eve"),
        ("http://reviews:9080/admin", "eve"),
        ("http://ratings/", "eve"),
    ] {
        let request = Request::get(uri).header("end-user", user).body(())?;
        println!("{uri} as {user}");
        if let Some(table) = snapshot.table("http") {
            println!("{}", explain(table, &Head::of(&request), 0));
        }
        let response = service.clone().oneshot(request).await?;
        println!("  <- {}", response.status());
    }
    Ok(())
}
