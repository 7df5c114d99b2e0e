//! Exchanges that end before they are over, and those who come between.

use super::*;
use std::time::Duration;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_response_that_is_waited_for_fails_when_its_connection_is_dropped() {
    let mut connected = connect();
    let response = connected.ask(get()).await;
    connected.task.abort();
    let response = timeout(LONG, response).await.expect("it was woken");
    let failed = response.unwrap_err();
    assert!(matches!(failed.error, Error::Closed) && failed.request.is_none());
}
