//! What is counted, by the names that Envoy shows it under.

crate::stats! {
    /// What is counted for each cluster (Envoy's `cluster.<name>.*`).
    pub enum ClusterStat {
        /// Connections made.
        CxTotal = Counter "upstream_cx_total",
        /// Connections made with HTTP/1.
        CxHttp1Total = Counter "upstream_cx_http1_total",
        /// Connections made with HTTP/2.
        CxHttp2Total = Counter "upstream_cx_http2_total",
        /// Connections open.
        CxActive = Gauge "upstream_cx_active",
        /// Connections that failed to be made.
        CxConnectFail = Counter "upstream_cx_connect_fail",
        /// Connections not made in time.
        CxConnectTimeout = Counter "upstream_cx_connect_timeout",
        /// Times the connection limit was met.
        CxOverflow = Counter "upstream_cx_overflow",
        /// Requests refused because of the limit on pools of connections.
        CxPoolOverflow = Counter "upstream_cx_pool_overflow",
        /// Connections closed.
        CxDestroy = Counter "upstream_cx_destroy",
        /// Connections closed for having been idle.
        CxIdleTimeout = Counter "upstream_cx_idle_timeout",
        /// Connections that broke the protocol.
        CxProtocolError = Counter "upstream_cx_protocol_error",
        /// Connections closed after their largest number of requests.
        CxMaxRequests = Counter "upstream_cx_max_requests",
        /// Connections closed by us.
        CxDestroyLocal = Counter "upstream_cx_destroy_local",
        /// Connections closed by the endpoint.
        CxDestroyRemote = Counter "upstream_cx_destroy_remote",
        /// Bytes received from endpoints, of connections passed on as they are.
        CxRxBytes = Counter "upstream_cx_rx_bytes_total",
        /// Bytes sent to endpoints, of connections passed on as they are.
        CxTxBytes = Counter "upstream_cx_tx_bytes_total",
        /// TLS handshakes that succeeded.
        SslHandshake = Counter "ssl.handshake",
        /// TLS handshakes that resumed a session.
        SslSessionReused = Counter "ssl.session_reused",
        /// TLS connections that failed, whyever.
        SslConnectionError = Counter "ssl.connection_error",
        /// Certificates that do not lead to a trusted root, are out of date or revoked.
        SslFailVerifyError = Counter "ssl.fail_verify_error",
        /// Certificates without a name that is asked for.
        SslFailVerifySan = Counter "ssl.fail_verify_san",
        /// Certificates that are not one of those asked for.
        SslFailVerifyCertHash = Counter "ssl.fail_verify_cert_hash",
        /// TLS connections that failed because a secret is not there (yet).
        SecretsNotReady = Counter "client_ssl_socket_factory.upstream_context_secrets_not_ready",
        /// Secrets of a discovery service that came, or changed.
        ContextUpdateBySds = Counter "client_ssl_socket_factory.ssl_context_update_by_sds",
        /// Requests that found no original destination.
        OriginalDestinationInvalid = Counter "original_dst_host_invalid",
        /// Looks at DNS.
        UpdateAttempt = Counter "update_attempt",
        /// Looks at DNS that had an answer.
        UpdateSuccess = Counter "update_success",
        /// Looks at DNS that failed.
        UpdateFailure = Counter "update_failure",
        /// Looks at DNS with the same answer as before.
        UpdateNoRebuild = Counter "update_no_rebuild",
        /// Requests.
        RqTotal = Counter "upstream_rq_total",
        /// Requests under way.
        RqActive = Gauge "upstream_rq_active",
        /// Responses.
        RqCompleted = Counter "upstream_rq_completed",
        /// Responses 1xx.
        Rq1xx = Counter "upstream_rq_1xx",
        /// Responses 2xx.
        Rq2xx = Counter "upstream_rq_2xx",
        /// Responses 3xx.
        Rq3xx = Counter "upstream_rq_3xx",
        /// Responses 4xx.
        Rq4xx = Counter "upstream_rq_4xx",
        /// Responses 5xx.
        Rq5xx = Counter "upstream_rq_5xx",
        /// Requests that waited for a connection.
        RqPendingTotal = Counter "upstream_rq_pending_total",
        /// Requests waiting for a connection.
        RqPendingActive = Gauge "upstream_rq_pending_active",
        /// Requests refused because of the limit on those that wait.
        RqPendingOverflow = Counter "upstream_rq_pending_overflow",
        /// Requests refused because of the limit on those under way.
        RqActiveOverflow = Counter "upstream_rq_active_overflow",
        /// Requests that failed because no connection could be made.
        RqPendingFailureEject = Counter "upstream_rq_pending_failure_eject",
        /// Requests that met the route's timeout.
        RqTimeout = Counter "upstream_rq_timeout",
        /// Attempts that met the per-try timeout.
        RqPerTryTimeout = Counter "upstream_rq_per_try_timeout",
        /// Attempts that stood still for too long.
        RqPerTryIdleTimeout = Counter "upstream_rq_per_try_idle_timeout",
        /// Requests that lasted longer than a stream may.
        RqMaxDurationReached = Counter "upstream_rq_max_duration_reached",
        /// Requests dropped by the caller before a response.
        RqCancelled = Counter "upstream_rq_cancelled",
        /// Streams reset by the upstream.
        RqRxReset = Counter "upstream_rq_rx_reset",
        /// Streams of HTTP/2 reset by us before they were over.
        RqTxReset = Counter "upstream_rq_tx_reset",
        /// Retries.
        RqRetry = Counter "upstream_rq_retry",
        /// Retries that were answered well.
        RqRetrySuccess = Counter "upstream_rq_retry_success",
        /// Retries refused because of a limit or budget.
        RqRetryOverflow = Counter "upstream_rq_retry_overflow",
        /// Requests that failed after their last retry.
        RqRetryLimitExceeded = Counter "upstream_rq_retry_limit_exceeded",
        /// Retries after an exponential back-off.
        RqRetryBackoff = Counter "upstream_rq_retry_backoff_exponential",
        /// Retries after the wait that an answer asked for.
        RqRetryBackoffRateLimited = Counter "upstream_rq_retry_backoff_ratelimited",
        /// Redirects of the upstream that were followed here.
        RedirectSucceeded = Counter "upstream_internal_redirect_succeeded_total",
        /// Redirects of the upstream that should have been followed here, and could not.
        RedirectFailed = Counter "upstream_internal_redirect_failed_total",
        /// Requests without an endpoint.
        NoHealthy = Counter "upstream_cx_none_healthy",
        /// Picks made in panic mode.
        LbHealthyPanic = Counter "lb_healthy_panic",
        /// Times it was settled how much of the traffic stays in the caller's own zone.
        LbZoneRecalculated = Counter "lb_recalculate_zone_structures",
        /// The same, given up because there are too few endpoints.
        LbZoneClusterTooSmall = Counter "lb_zone_cluster_too_small",
        /// The same, or a pick, given up because the caller's own cluster is not as it should be.
        LbLocalClusterNotOk = Counter "lb_local_cluster_not_ok",
        /// Picks in the own zone, which takes all of the traffic.
        LbZoneAllDirectly = Counter "lb_zone_routing_all_directly",
        /// Picks in the own zone, which takes a part of the traffic.
        LbZoneSampled = Counter "lb_zone_routing_sampled",
        /// Picks in another zone.
        LbZoneCrossZone = Counter "lb_zone_routing_cross_zone",
        /// Picks in another zone though none has room.
        LbZoneNoCapacityLeft = Counter "lb_zone_no_capacity_left",
        /// Subsets that there are.
        LbSubsetsActive = Gauge "lb_subsets_active",
        /// Subsets that came to be.
        LbSubsetsCreated = Counter "lb_subsets_created",
        /// Subsets that are no more.
        LbSubsetsRemoved = Counter "lb_subsets_removed",
        /// Picks in the subset that was asked for.
        LbSubsetsSelected = Counter "lb_subsets_selected",
        /// Picks in the subset for those whose own there is not.
        LbSubsetsFallback = Counter "lb_subsets_fallback",
        /// Picks from all endpoints because not even that subset had one.
        LbSubsetsFallbackPanic = Counter "lb_subsets_fallback_panic",
        /// Endpoints that share a subset which has room for one.
        LbSubsetsDuplicate = Gauge "lb_subsets_single_host_per_subset_duplicate",
        /// Points of the ring of hashes.
        RingSize = Gauge "ring_hash_lb.size",
        /// Fewest points of an endpoint.
        RingLeast = Gauge "ring_hash_lb.min_hashes_per_host",
        /// Most points of an endpoint.
        RingMost = Gauge "ring_hash_lb.max_hashes_per_host",
        /// Fewest places of an endpoint in Maglev's table.
        MaglevLeast = Gauge "maglev_lb.min_entries_per_host",
        /// Most places of an endpoint in Maglev's table.
        MaglevMost = Gauge "maglev_lb.max_entries_per_host",
        /// Requests refused because discovery wants it so. Envoy counts it for load reports.
        RqDropOverload = Counter "upstream_rq_drop_overload",
        /// Changes of the set of endpoints.
        MembershipChange = Counter "membership_change",
        /// Endpoints.
        MembershipTotal = Gauge "membership_total",
        /// Healthy endpoints.
        MembershipHealthy = Gauge "membership_healthy",
        /// Degraded endpoints.
        MembershipDegraded = Gauge "membership_degraded",
        /// Endpoints that are left out when it is judged whether there are enough healthy ones.
        MembershipExcluded = Gauge "membership_excluded",
        /// Active health checks made.
        CheckAttempt = Counter "health_check.attempt",
        /// Active health checks that were answered well.
        CheckSuccess = Counter "health_check.success",
        /// Active health checks that failed, and answers to requests that say so themselves.
        CheckFailure = Counter "health_check.failure",
        /// Answers to requests that say that the endpoint is not well.
        CheckPassiveFailure = Counter "health_check.passive_failure",
        /// Active health checks without an answer: no connection, a closed one, or none in time.
        CheckNetworkFailure = Counter "health_check.network_failure",
        /// Active health checks whose answer had to name its cluster.
        CheckVerifyCluster = Counter "health_check.verify_cluster",
        /// Endpoints that active health checks find well.
        CheckHealthy = Gauge "health_check.healthy",
        /// Endpoints that active health checks find degraded.
        CheckDegraded = Gauge "health_check.degraded",
        /// Endpoints ejected now.
        OutlierActive = Gauge "outlier_detection.ejections_active",
        /// Ejections made.
        OutlierEnforced = Counter "outlier_detection.ejections_enforced_total",
        /// Ejections refused because of the largest percentage.
        OutlierOverflow = Counter "outlier_detection.ejections_overflow",
        /// Ejections for consecutive 5xx answers.
        OutlierEnforced5xx = Counter "outlier_detection.ejections_enforced_consecutive_5xx",
        /// Consecutive 5xx answers detected, ejected or not.
        OutlierDetected5xx = Counter "outlier_detection.ejections_detected_consecutive_5xx",
        /// Ejections for consecutive gateway errors.
        OutlierEnforcedGateway = Counter "outlier_detection.ejections_enforced_consecutive_gateway_failure",
        /// Consecutive gateway errors detected.
        OutlierDetectedGateway = Counter "outlier_detection.ejections_detected_consecutive_gateway_failure",
        /// Ejections for consecutive local failures.
        OutlierEnforcedLocal = Counter "outlier_detection.ejections_enforced_consecutive_local_origin_failure",
        /// Consecutive local failures detected.
        OutlierDetectedLocal = Counter "outlier_detection.ejections_detected_consecutive_local_origin_failure",
        /// Ejections for a low success rate.
        OutlierEnforcedSuccessRate = Counter "outlier_detection.ejections_enforced_success_rate",
        /// Ejections for a high share of failures.
        OutlierEnforcedFailurePercentage = Counter "outlier_detection.ejections_enforced_failure_percentage",
        /// Circuit breaker on connections is open (1) or closed (0).
        BreakerCxOpen = Gauge "circuit_breakers.default.cx_open",
        /// Circuit breaker on pending requests.
        BreakerPendingOpen = Gauge "circuit_breakers.default.rq_pending_open",
        /// Circuit breaker on requests.
        BreakerRqOpen = Gauge "circuit_breakers.default.rq_open",
        /// Circuit breaker on retries.
        BreakerRetryOpen = Gauge "circuit_breakers.default.rq_retry_open",
        /// Circuit breaker on pools of connections.
        BreakerPoolOpen = Gauge "circuit_breakers.default.cx_pool_open",
        /// The same of the HIGH priority: connections.
        HighCxOpen = Gauge "circuit_breakers.high.cx_open",
        /// Pending requests.
        HighPendingOpen = Gauge "circuit_breakers.high.rq_pending_open",
        /// Requests.
        HighRqOpen = Gauge "circuit_breakers.high.rq_open",
        /// Retries.
        HighRetryOpen = Gauge "circuit_breakers.high.rq_retry_open",
        /// Pools of connections.
        HighPoolOpen = Gauge "circuit_breakers.high.cx_pool_open",
    }
}

crate::stats! {
    /// What is counted for each listener's HTTP side (Envoy's `http.<stat_prefix>.*`).
    pub enum HttpStat {
        /// Connections accepted.
        CxTotal = Counter "downstream_cx_total",
        /// Connections open.
        CxActive = Gauge "downstream_cx_active",
        /// Connections that spoke HTTP/1.
        CxHttp1Total = Counter "downstream_cx_http1_total",
        /// Connections that spoke HTTP/2.
        CxHttp2Total = Counter "downstream_cx_http2_total",
        /// Connections closed.
        CxDestroy = Counter "downstream_cx_destroy",
        /// Connections closed for having been idle.
        CxIdleTimeout = Counter "downstream_cx_idle_timeout",
        /// Connections that broke the protocol.
        CxProtocolError = Counter "downstream_cx_protocol_error",
        /// Connections ended with a response because the process runs out of something.
        CxOverloadDisableKeepalive = Counter "downstream_cx_overload_disable_keepalive",
        /// Connections closed because most of their many requests were reset early.
        RqTooManyPrematureResets = Counter "downstream_rq_too_many_premature_resets",
        /// Connections closed because of a drain.
        CxDrainClose = Counter "downstream_cx_drain_close",
        /// Upgraded connections, total.
        CxUpgradesTotal = Counter "downstream_cx_upgrades_total",
        /// Upgraded connections open.
        CxUpgradesActive = Gauge "downstream_cx_upgrades_active",
        /// Requests.
        RqTotal = Counter "downstream_rq_total",
        /// Requests with HTTP/1.
        RqHttp1Total = Counter "downstream_rq_http1_total",
        /// Requests with HTTP/2.
        RqHttp2Total = Counter "downstream_rq_http2_total",
        /// Requests under way.
        RqActive = Gauge "downstream_rq_active",
        /// Requests answered.
        RqCompleted = Counter "downstream_rq_completed",
        /// Responses 1xx.
        Rq1xx = Counter "downstream_rq_1xx",
        /// Responses 2xx.
        Rq2xx = Counter "downstream_rq_2xx",
        /// Responses 3xx.
        Rq3xx = Counter "downstream_rq_3xx",
        /// Responses 4xx.
        Rq4xx = Counter "downstream_rq_4xx",
        /// Responses 5xx.
        Rq5xx = Counter "downstream_rq_5xx",
        /// Requests reset by the caller.
        RqRxReset = Counter "downstream_rq_rx_reset",
        /// Responses reset by us.
        RqTxReset = Counter "downstream_rq_tx_reset",
        /// Requests that did not arrive whole in time.
        RqTimeout = Counter "downstream_rq_timeout",
        /// Requests whose head did not arrive in time.
        RqHeaderTimeout = Counter "downstream_rq_header_timeout",
        /// Requests on whose stream nothing moved.
        RqIdleTimeout = Counter "downstream_rq_idle_timeout",
        /// Requests that lasted longer than a stream may.
        RqMaxDurationReached = Counter "downstream_rq_max_duration_reached",
        /// Requests closed by overload.
        RqOverloadClose = Counter "downstream_rq_overload_close",
        /// Requests without a route.
        NoRoute = Counter "no_route",
        /// Requests whose cluster does not exist.
        NoCluster = Counter "no_cluster",
        /// Requests that reached the router.
        RouterRqTotal = Counter "rq_total",
        /// Fixed responses, and redirects: Envoy counts those here, and nothing as `rq_redirect`.
        RqDirectResponse = Counter "rq_direct_response",
        /// Redirects passed on because their `location` is no URL of http.
        RedirectBadLocation = Counter "passthrough_internal_redirect_bad_location",
        /// Redirects passed on because they lead to another scheme.
        RedirectUnsafeScheme = Counter "passthrough_internal_redirect_unsafe_scheme",
        /// Redirects passed on because there were too many before.
        RedirectTooMany = Counter "passthrough_internal_redirect_too_many_redirects",
        /// Redirects passed on because no route is where they lead.
        RedirectNoRoute = Counter "passthrough_internal_redirect_no_route",
        /// Redirects passed on because of the route to which they lead.
        RedirectPredicate = Counter "passthrough_internal_redirect_predicate",
        /// Responses reset after their head went out.
        RqResetAfterStart = Counter "rq_reset_after_downstream_response_started",
        /// Faults: aborts.
        FaultAborts = Counter "fault.aborts_injected",
        /// Faults: delays.
        FaultDelays = Counter "fault.delays_injected",
        /// Faults: slow answers.
        FaultSlow = Counter "fault.response_rl_injected",
        /// Faults that did not come about because there were too many.
        FaultOverflow = Counter "fault.faults_overflow",
        /// Faults under way.
        FaultActive = Gauge "fault.active_faults",
        /// CORS: origins that matched.
        CorsValid = Counter "cors.origin_valid",
        /// CORS: origins that did not.
        CorsInvalid = Counter "cors.origin_invalid",
        /// Local rate limit: refused.
        RateLimited = Counter "local_rate_limit.rate_limited",
        /// Local rate limit: let through.
        RateOk = Counter "local_rate_limit.ok",
        /// Requests whose token is as it has to be, or that need none.
        JwtAllowed = Counter "jwt_authn.allowed",
        /// Requests refused for their token, or for having none.
        JwtDenied = Counter "jwt_authn.denied",
        /// Preflights that were let through without a token.
        JwtPreflight = Counter "jwt_authn.cors_preflight_bypassed",
        /// Sets of keys that were got.
        JwksFetched = Counter "jwt_authn.jwks_fetch_success",
        /// Sets of keys that could not be got, or are none.
        JwksFailed = Counter "jwt_authn.jwks_fetch_failed",
        /// Virtual hosts and clusters asked for. Envoy counts nothing here; the names are those of
        /// its TCP proxy.
        OnDemandAttempt = Counter "on_demand.attempt",
        /// Asked for, and came.
        OnDemandSuccess = Counter "on_demand.success",
        /// Asked for, and do not exist.
        OnDemandMissing = Counter "on_demand.missing",
        /// Asked for, and did not come in time.
        OnDemandTimeout = Counter "on_demand.timeout",
        /// Not asked for because too much was asked for already.
        OnDemandRefused = Counter "on_demand.refused",
    }
}

crate::stats! {
    /// What is counted for each listener (Envoy's `listener.<address>.*`).
    pub enum ListenerStat {
        /// Connections accepted.
        CxTotal = Counter "downstream_cx_total",
        /// Connections open.
        CxActive = Gauge "downstream_cx_active",
        /// Connections closed.
        CxDestroy = Counter "downstream_cx_destroy",
        /// Connections that are looked at before a chain is chosen.
        PreCxActive = Gauge "downstream_pre_cx_active",
        /// Connections that were looked at for too long.
        PreCxTimeout = Counter "downstream_pre_cx_timeout",
        /// Handshakes that took too long.
        CxTransportConnectTimeout = Counter "downstream_cx_transport_socket_connect_timeout",
        /// Connections that no chain matches.
        NoFilterChainMatch = Counter "no_filter_chain_match",
        /// Connections closed at once because the process has as many as it may.
        GlobalCxOverflow = Counter "downstream_global_cx_overflow",
        /// Connections closed at once because their caller's address has as many as it may. Envoy
        /// has no such limit.
        AddressCxOverflow = Counter "downstream_address_cx_overflow",
        /// Connections closed at once because the process runs out of something.
        CxOverloadReject = Counter "downstream_cx_overload_reject",
        /// Connections closed because there are as many handshakes under way as there may be.
        /// Envoy has no such limit.
        HandshakeOverflow = Counter "downstream_cx_handshake_overflow",
        /// TLS handshakes that succeeded.
        SslHandshake = Counter "ssl.handshake",
        /// TLS handshakes that resumed a session.
        SslSessionReused = Counter "ssl.session_reused",
        /// Handshakes without a certificate of the caller.
        SslNoCertificate = Counter "ssl.no_certificate",
        /// TLS connections that failed, whyever.
        SslConnectionError = Counter "ssl.connection_error",
        /// Callers refused for want of a certificate.
        SslFailVerifyNoCert = Counter "ssl.fail_verify_no_cert",
        /// Certificates that do not lead to a trusted root, are out of date or revoked.
        SslFailVerifyError = Counter "ssl.fail_verify_error",
        /// Certificates without a name that is asked for.
        SslFailVerifySan = Counter "ssl.fail_verify_san",
        /// Certificates that are not one of those asked for.
        SslFailVerifyCertHash = Counter "ssl.fail_verify_cert_hash",
        /// Connections that were closed because a secret is not there (yet).
        SecretsNotReady = Counter "server_ssl_socket_factory.downstream_context_secrets_not_ready",
        /// Secrets of a discovery service that came, or changed.
        ContextUpdateBySds = Counter "server_ssl_socket_factory.ssl_context_update_by_sds",
    }
}

crate::stats! {
    /// What is counted for connections that are passed on as they are (Envoy's
    /// `tcp.<stat_prefix>.*`).
    pub enum TcpStat {
        /// Connections.
        CxTotal = Counter "downstream_cx_total",
        /// Connections without a cluster to go to.
        CxNoRoute = Counter "downstream_cx_no_route",
        /// Bytes sent to callers.
        CxTxBytes = Counter "downstream_cx_tx_bytes_total",
        /// Bytes received from callers.
        CxRxBytes = Counter "downstream_cx_rx_bytes_total",
        /// Bytes for callers that are held.
        CxTxBytesBuffered = Gauge "downstream_cx_tx_bytes_buffered",
        /// Bytes of callers that are held.
        CxRxBytesBuffered = Gauge "downstream_cx_rx_bytes_buffered",
        /// Clusters asked for on demand.
        OnDemandAttempt = Counter "on_demand_cluster_attempt",
        /// Clusters asked for that do not exist.
        OnDemandMissing = Counter "on_demand_cluster_missing",
        /// Clusters asked for that did not come in time.
        OnDemandTimeout = Counter "on_demand_cluster_timeout",
        /// Clusters asked for that came.
        OnDemandSuccess = Counter "on_demand_cluster_success",
        /// Clusters not asked for because too much was asked for already. Envoy asks without a
        /// bound.
        OnDemandRefused = Counter "on_demand_cluster_refused",
        /// Connections closed for having been idle.
        IdleTimeout = Counter "idle_timeout",
        /// Connections closed for their age.
        MaxDuration = Counter "max_downstream_connection_duration",
    }
}

crate::stats! {
    /// What is counted where connections are limited (Envoy's `connection_limit.<stat_prefix>.*`).
    pub enum ConnectionLimitStat {
        /// Connections closed for being too many.
        LimitedConnections = Counter "limited_connections",
        /// Connections open.
        ActiveConnections = Gauge "active_connections",
    }
}

crate::stats! {
    /// What is counted of callers' connections of HTTP/2 (Envoy's `http2.*`), for all listeners
    /// together.
    pub enum Http2Stat {
        /// Connections closed for frames without content, one after the other.
        EmptyFramesFlood = Counter "inbound_empty_frames_flood",
        /// Connections closed for too many PRIORITY frames.
        PriorityFramesFlood = Counter "inbound_priority_frames_flood",
        /// Connections closed for too many WINDOW_UPDATE frames.
        WindowUpdateFramesFlood = Counter "inbound_window_update_frames_flood",
        /// Connections closed for frames that have to be answered, faster than they are.
        ControlFlood = Counter "outbound_control_flood",
    }
}

crate::stats! {
    /// What is counted where rules judge requests or connections (Envoy's `….rbac.*`); the prefix
    /// ends in `shadow_` for rules on trial.
    pub enum AuthzStat {
        /// Allowed.
        Allowed = Counter "allowed",
        /// Denied.
        Denied = Counter "denied",
    }
}

crate::stats! {
    /// What is counted where a service is asked whether something may go on (Envoy's
    /// `….ext_authz.*`).
    pub enum ExternalStat {
        /// It allowed it.
        Ok = Counter "ok",
        /// It denied it.
        Denied = Counter "denied",
        /// It could not be asked.
        Error = Counter "error",
        /// It could not be asked, and what it was asked about went on.
        FailureModeAllowed = Counter "failure_mode_allowed",
        /// It was not asked, because no rule wants it.
        Disabled = Counter "disabled",
    }
}

crate::stats! {
    /// What is counted where requests are kept at an endpoint (Envoy's `….stateful_session.*`).
    pub enum SessionStat {
        /// The endpoint that the caller named answered, or failed to.
        Routed = Counter "routed",
        /// Another one did, or the caller named none.
        FailedOpen = Counter "failed_open",
        /// There was none to send it to, and it had to be the one that was named.
        FailedClosed = Counter "failed_closed",
        /// It went to an endpoint without a session: there are none, or the path has none.
        NoSession = Counter "no_session",
    }
}

crate::stats! {
    /// What is counted for each rule with a prefix of its own (Envoy's
    /// `vhost.<virtual host>.route.<stat_prefix>.*`): of what was forwarded, not of answers that
    /// were made before (redirects, fixed responses, faults).
    pub enum RouteStat {
        /// Attempts that went to a host.
        RqTotal = Counter "upstream_rq_total",
        /// Answers, the last of each request.
        RqCompleted = Counter "upstream_rq_completed",
        /// Answers 1xx.
        Rq1xx = Counter "upstream_rq_1xx",
        /// Answers 2xx.
        Rq2xx = Counter "upstream_rq_2xx",
        /// Answers 3xx.
        Rq3xx = Counter "upstream_rq_3xx",
        /// Answers 4xx.
        Rq4xx = Counter "upstream_rq_4xx",
        /// Answers 5xx, ours included.
        Rq5xx = Counter "upstream_rq_5xx",
        /// Requests that met the route's timeout.
        RqTimeout = Counter "upstream_rq_timeout",
        /// Retries.
        RqRetry = Counter "upstream_rq_retry",
        /// Requests that were answered well after a retry.
        RqRetrySuccess = Counter "upstream_rq_retry_success",
        /// Retries refused because of a limit or budget.
        RqRetryOverflow = Counter "upstream_rq_retry_overflow",
        /// Requests that failed after their last retry.
        RqRetryLimitExceeded = Counter "upstream_rq_retry_limit_exceeded",
    }
}
