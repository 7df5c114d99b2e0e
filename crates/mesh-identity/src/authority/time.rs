//! Points in time as certificates have them: whole seconds since 1970.

use mesh_core::Invalid;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::prelude::ASN1Time;

/// The last second of the year 9999, which certificates end with.
const LAST: i64 = 253_402_300_799;

pub(super) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(LAST).min(LAST)
}

pub(super) fn point(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// For the fields of [`rcgen::CertificateParams`].
pub(super) fn asn1(seconds: i64) -> Result<ASN1Time, Invalid> {
    ASN1Time::from_timestamp(seconds.clamp(0, LAST))
        .map_err(|_| Invalid::new("", "the time is out of range"))
}
