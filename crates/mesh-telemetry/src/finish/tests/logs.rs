//! Which logs a request is written to.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_listener_with_the_same_logs_is_recognised_and_a_changed_one_compiled() {
    let mut place = Place::with_format(Direction::Outbound, "one");
    place.ask(&Probe::new(), empty()).await;
    // The same content at another address, as after a change somewhere else.
    place.manager = Arc::new((*place.manager).clone());
    place.ask(&Probe::new(), empty()).await;
    let manager = Arc::make_mut(&mut place.manager);
    manager.access_log[0].format = "two\n".into();
    place.ask(&Probe::new(), empty()).await;
    assert_eq!(place.lines(), "one\none\ntwo\n");
}

#[tokio::test(start_paused = true)]
async fn a_format_that_is_wrong_is_refused_when_prepared_and_remembered_when_met() {
    let place = Place::with_format(Direction::Outbound, "%NONSENSE%");
    let expected = "access_log[0].format: at byte 0: unknown operator NONSENSE";
    let error = place.telemetry.prepare(&place.manager).unwrap_err();
    assert_eq!(error.to_string(), expected);
    assert!(place.telemetry.problems().is_empty());
    place.ask(&Probe::new(), empty()).await;
    assert_eq!(place.telemetry.problems()[0].to_string(), expected);
    assert!(
        place.telemetry.prepare(&place.manager).is_err(),
        "still wrong"
    );
    assert_eq!(place.lines(), "");

    let mut manager = HttpManager::new("here", "t");
    manager.access_log = vec![AccessLog {
        path: "/no/such/directory/x".into(),
        format: "".into(),
    }];
    let error = place.telemetry.prepare(&manager).unwrap_err();
    assert_eq!(error.path(), "access_log[0].path");
}

#[tokio::test(start_paused = true)]
async fn requests_without_a_listener_are_logged_where_that_was_asked_for() {
    let log = Memory::default();
    let own = AccessLog {
        path: "mine".into(),
        format: "%REQ(:PATH)% %REQ(X)%".into(),
    };
    let telemetry = Telemetry::new(WorkloadRef::default())
        .output("mine", log.clone())
        .log(own)
        .unwrap();
    let telemetry = Arc::new(telemetry);
    let service = FinishLayer::<Taken>::new(telemetry.clone()).layer(Probe::new());
    let request = Request::get("/a?b").header("x", "1").body(empty()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    read(response.into_body()).await;
    telemetry.flush().unwrap();
    assert_eq!(*log.0.lock().unwrap(), b"/a?b 1\n");
}
