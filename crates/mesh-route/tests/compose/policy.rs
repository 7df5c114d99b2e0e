//! What the layers are told to do.

use crate::place::Boxes;
use http::{HeaderName, HeaderValue, Request, StatusCode, request};
use mesh_core::model::{
    Action, AddMode, Cluster, Condition, Cors, DirectResponse, HeaderAdd, HeaderEdits,
    HeaderTemplate, Mirror, PathMatch, PathRewrite, Redirect, Rule, Snapshot, StringMatch,
};
use mesh_core::{Exchange, Feed, Publisher};
use mesh_route::mirror::{Executor, TeeBody};
use mesh_route::{MapRequestBodyLayer, RouteLayer};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

/// A request for this path.
pub(crate) fn ask(path: &str) -> request::Builder {
    Request::post(format!("http://app.example{path}"))
}

/// Puts a header on.
pub(crate) fn mark(name: &'static str) -> HeaderEdits {
    let mut edits = HeaderEdits::default();
    edits.add.push(HeaderAdd {
        name: HeaderName::from_static(name),
        value: HeaderTemplate::Fixed(HeaderValue::from_static("yes")),
        mode: AddMode::Append,
        keep_empty: false,
    });
    edits
}

pub(crate) fn cors() -> Cors {
    let mut cors = Cors::default();
    cors.allow_origins = vec![StringMatch::Exact("http://ok".into())];
    cors.allow_methods = "POST".into();
    cors
}

/// To the same place with TLS.
pub(crate) fn to_https() -> Action {
    let mut redirect = Redirect::default();
    redirect.scheme = Some("https".into());
    Action::Redirect(redirect)
}

pub(crate) fn teapot() -> Action {
    let mut teapot = DirectResponse::default();
    teapot.status = StatusCode::IM_A_TEAPOT;
    teapot.body = "short and stout".into();
    Action::Respond(teapot)
}

/// `/app` goes to the cluster `app`, `/old` too but under its new name and with a copy to
/// `shadow`; `/teapot` is answered, `/moved` redirected, `/gone` has no cluster. All are marked on
/// the way out, and there is nothing else.
fn feed() -> Feed<Snapshot> {
    let mut renamed = Rule::prefix_to("/old", "app");
    let Action::Forward(forward) = &mut renamed.action else {
        unreachable!("it forwards")
    };
    forward.path = PathRewrite::Prefix("/new".into());
    renamed.mirrors.push(Mirror::to("shadow"));
    let mut gone = Rule::prefix_to("/gone", "nowhere");
    gone.cors = Some(Arc::new(cors()));
    let mut rules = vec![
        Rule::prefix_to("/app", "app"),
        renamed,
        at("/teapot", teapot()),
        at("/moved", to_https()),
        gone,
    ];
    for rule in &mut rules {
        rule.response_edits = mark("x-marked");
    }
    let clusters = vec![Cluster::new("app"), Cluster::new("shadow")];
    Publisher::from_arc(mesh_test::fixture::snapshot(rules, clusters)).feed()
}

fn at(path: &str, action: Action) -> Rule {
    let mut condition = Condition::default();
    condition.path = PathMatch::Exact(path.into());
    Rule::new(condition, action)
}

/// Routes by the rules above.
pub(crate) fn routes() -> RouteLayer {
    RouteLayer::new(feed()).table("t")
}

/// Tells the upstream which cluster was chosen, as somebody's own layer might.
pub(crate) fn tell_cluster<B>(mut request: Request<B>) -> Request<B> {
    let cluster = Exchange::of(&request).and_then(Exchange::cluster);
    if let Some(cluster) = cluster.cloned() {
        let name = HeaderValue::from_str(&cluster.config().name).unwrap();
        request.headers_mut().insert("x-cluster", name);
    }
    request
}

/// Below a mirror, for services that take one type of body only.
pub(crate) fn boxing<B: Boxes + 'static>() -> MapRequestBodyLayer<TeeBody<B>, B> {
    MapRequestBodyLayer::new(B::boxes::<TeeBody<B>>)
}

/// Keeps copies until they are wanted.
#[derive(Clone, Default)]
pub(crate) struct Copies(Arc<Mutex<Vec<Copy>>>);

type Copy = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Executor for Copies {
    fn spawn(&self, copy: Copy) {
        self.0.lock().unwrap().push(copy);
    }
}

impl Copies {
    /// Sends what has been kept, and says how many that were.
    pub(crate) async fn send(&self) -> usize {
        let copies = std::mem::take(&mut *self.0.lock().unwrap());
        let count = copies.len();
        for copy in copies {
            copy.await;
        }
        count
    }
}
