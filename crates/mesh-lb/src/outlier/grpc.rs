//! The status that outlier detection judges an answer by.

use http::{HeaderMap, StatusCode};

/// The HTTP status of an answer to be judged by: for a gRPC request whose answer carries
/// `grpc-status` in its head (a failure without a body), what that stands for.
pub(crate) fn judged_status(grpc: bool, status: StatusCode, headers: &HeaderMap) -> u16 {
    if !grpc {
        return status.as_u16();
    }
    let code = headers
        .get("grpc-status")
        .and_then(|value| value.to_str().ok());
    code.map_or(status.as_u16(), |code| http_of(code.trim().parse().ok()))
}

/// Envoy's `Grpc::Utility::grpcToHttpStatus`, which is that of google.rpc.Code.
fn http_of(code: Option<u32>) -> u16 {
    match code {
        Some(0) => 200,
        Some(1) => 499,
        Some(3 | 9 | 11) => 400,
        Some(4) => 504,
        Some(5) => 404,
        Some(6 | 10) => 409,
        Some(7) => 403,
        Some(8) => 429,
        Some(12) => 501,
        Some(14) => 503,
        Some(16) => 401,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_status_in_the_head_is_judged_as_the_status_it_stands_for() {
        let rows = [
            ("0", 200),
            ("1", 499),
            ("2", 500),
            ("3", 400),
            ("4", 504),
            ("5", 404),
            ("8", 429),
            ("12", 501),
            ("13", 500),
            ("14", 503),
            ("15", 500),
            ("16", 401),
            ("99", 500),
            ("no number", 500),
        ];
        for (code, status) in rows {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", code.parse().unwrap());
            assert_eq!(
                judged_status(true, StatusCode::OK, &headers),
                status,
                "{code}"
            );
            assert_eq!(
                judged_status(false, StatusCode::OK, &headers),
                200,
                "a request that is not gRPC is judged by its status"
            );
        }
        assert_eq!(
            judged_status(true, StatusCode::BAD_GATEWAY, &HeaderMap::new()),
            502
        );
    }
}
