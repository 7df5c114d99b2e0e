//! A service with Istio's access log on standard output and its standard metrics, and no proxy.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use mesh_core::Invalid;
use mesh_core::model::{AccessLog, Direction, WorkloadRef};
use mesh_telemetry::expose::{Query, Scrape};
use mesh_telemetry::finish::Received;
use mesh_telemetry::{FinishLayer, Telemetry};
use std::convert::Infallible;
use std::sync::Arc;
use tower::{ServiceExt, service_fn};
use tower_layer::Layer;

type RequestBody = Received<Full<Bytes>>;

async fn answer(request: Request<RequestBody>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::from("hello\n"));
    if request.uri().path() != "/" {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    Ok(response)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Invalid> {
    let mut node = WorkloadRef::default();
    node.name = "greeter-v1".into();
    node.namespace = "default".into();
    let stdout = AccessLog {
        path: "-".into(),
        format: "".into(),
    };
    let telemetry = Telemetry::new(node)
        .direction(Direction::Inbound)
        .log(stdout)?;
    let telemetry = Arc::new(telemetry);

    let service = FinishLayer::<RequestBody>::new(telemetry.clone()).layer(service_fn(answer));
    for path in ["/", "/favicon.ico"] {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = path.parse().expect("a path");
        let Ok(response) = service.clone().oneshot(request).await;
        // Neither the body nor its wrapper can fail.
        let Ok(_) = response.into_body().collect().await;
    }
    // A server would run `telemetry.run(..)` on a task instead.
    if let Err(error) = telemetry.flush() {
        eprintln!("access log: {error}");
    }

    let query = Query::parse("type=Counters&filter=istio_")?;
    print!("{}", Scrape::new().telemetry(&telemetry).prometheus(&query));
    Ok(())
}
