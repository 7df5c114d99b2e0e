//! `LoadBalancerSettings`: how an endpoint is chosen.

use std::time::Duration;

use http::HeaderName;
use mesh_core::Name;
use mesh_core::model::{HashCookie, HashSource, Real};

use super::locality::LocalitySetting;
use super::zone::ZoneAwareSetting;
use crate::cursor::{Cursor, read};

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Balancer {
    /// By weight and load alone.
    pub simple: Simple,
    /// By what is the same in requests, instead.
    pub hash: Option<ConsistentHash>,
    /// Which localities come first.
    pub locality: Option<LocalitySetting>,
    /// The own zone first, instead.
    pub zone_aware: Option<ZoneAwareSetting>,
    /// New endpoints get their share little by little. For ROUND_ROBIN and LEAST_REQUEST.
    pub warmup: Option<Warmup>,
}

/// How an endpoint is chosen by weight and load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Simple {
    /// The less busy of two.
    #[default]
    LeastRequest,
    /// Each in turn.
    RoundRobin,
    /// Any.
    Random,
    /// None: the one that the connection was going to.
    Passthrough,
}

/// Requests that are the same in something go to the same endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistentHash {
    /// What they are the same in; without it, any endpoint is taken.
    pub source: Option<HashSource>,
    /// How endpoints share the hashes.
    pub algorithm: HashAlgorithm,
}

/// How endpoints share the hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// A ring of at least so many points.
    Ring(u64),
    /// A table of so many places.
    Maglev(u64),
}

/// New endpoints get their share little by little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warmup {
    /// How long an endpoint is new.
    pub duration: Duration,
    /// The share at first, in percent. Default 10.
    pub minimum: u32,
    /// Above 1 faster at first. Default 1.
    pub aggression: Real,
}

/// Points of a ring where nothing is said.
const RING: u64 = 1024;
/// The most points of a ring (Envoy).
const MOST_POINTS: i64 = 8 << 20;
/// Tables are smaller than this.
const TABLE_BOUND: i64 = 5_000_011;

// === impl Balancer ===

impl Balancer {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let simple = fields.get("simple", |cursor| {
            if cursor.string()? == "LEAST_CONN" {
                cursor.warn("deprecated: write LEAST_REQUEST");
                return Some(Simple::LeastRequest);
            }
            cursor.choice(&[
                ("UNSPECIFIED", Simple::LeastRequest),
                ("LEAST_REQUEST", Simple::LeastRequest),
                ("ROUND_ROBIN", Simple::RoundRobin),
                ("RANDOM", Simple::Random),
                ("PASSTHROUGH", Simple::Passthrough),
            ])
        });
        let hash = fields.get("consistentHash", ConsistentHash::read);
        if fields.has("simple") && fields.has("consistentHash") {
            cursor.error("simple and consistentHash exclude one another");
        }
        let locality = fields.get("localityLbSetting", LocalitySetting::read);
        let zone_aware = fields.get("zoneAwareLbSetting", ZoneAwareSetting::read);
        if fields.has("localityLbSetting") && fields.has("zoneAwareLbSetting") {
            cursor.error("localityLbSetting and zoneAwareLbSetting exclude one another");
        }
        // Envoy has it for those that choose by weight and load.
        let is_idle = hash.is_some()
            || fields.has("consistentHash")
            || matches!(simple, Some(Simple::Random | Simple::Passthrough));
        let look = |cursor: &Cursor<'_>| {
            if is_idle {
                cursor.warn(
                    "has no effect: only with ROUND_ROBIN and LEAST_REQUEST new endpoints get \
                     their share little by little",
                );
            }
        };
        let old = fields.get("warmupDurationSecs", |cursor| {
            cursor.warn("deprecated: write warmup: {duration: …}");
            look(cursor);
            cursor.positive_duration()
        });
        let old = old.map(|duration| Warmup {
            duration,
            minimum: 10,
            aggression: Real::ONE,
        });
        let warmup = fields.get("warmup", |cursor| {
            look(cursor);
            Warmup::read(cursor)
        });
        let warmup = warmup.or(old);
        fields.done();
        Some(Self {
            simple: simple.unwrap_or_default(),
            hash,
            locality,
            zone_aware,
            warmup,
        })
    }
}

// === impl ConsistentHash ===

impl ConsistentHash {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let mut sources: Vec<Option<HashSource>> = Vec::new();
        sources.extend(fields.get("httpHeaderName", |cursor| {
            let text = cursor.filled()?;
            match HeaderName::try_from(&text) {
                Ok(name) => Some(Some(HashSource::Header(name, None))),
                Err(_) => {
                    cursor.error(format!("{text:?} is not the name of a header"));
                    None
                }
            }
        }));
        let cookie = fields.get("httpCookie", cookie);
        sources.extend(cookie.map(|cookie| Some(HashSource::Cookie(cookie))));
        let address = fields.get("useSourceIp", read::bool);
        sources.extend(address.map(|counts| counts.then_some(HashSource::SourceIp)));
        let query = fields.get("httpQueryParameterName", read::filled);
        sources.extend(query.map(|name| Some(HashSource::Query(Name::from(name)))));
        if sources.len() > 1 {
            cursor.error(
                "httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName exclude one \
                 another",
            );
        }
        let old = fields.get("minimumRingSize", |cursor| {
            cursor.warn("deprecated: write ringHash: {minimumRingSize: …}");
            points(cursor)
        });
        let ring = fields.get("ringHash", |cursor| {
            let mut fields = cursor.fields()?;
            let least = fields.get("minimumRingSize", points);
            fields.done();
            Some(least.unwrap_or(RING))
        });
        let table = fields.get("maglev", |cursor| {
            let mut fields = cursor.fields()?;
            let size = fields.need("tableSize", places);
            fields.done();
            size
        });
        if fields.has("ringHash") && fields.has("maglev") {
            cursor.error("ringHash and maglev exclude one another");
        }
        fields.done();
        Some(Self {
            source: sources.pop().flatten(),
            algorithm: match (table, ring) {
                (Some(size), _) => HashAlgorithm::Maglev(size),
                (None, ring) => HashAlgorithm::Ring(ring.or(old).unwrap_or(RING)),
            },
        })
    }
}

/// A number of points; the protos cannot tell 0 from absent.
fn points(cursor: &Cursor<'_>) -> Option<u64> {
    let points = u64::try_from(cursor.integer(0, MOST_POINTS)?).ok()?;
    Some(if points == 0 { RING } else { points })
}

/// A prime number of places.
fn places(cursor: &Cursor<'_>) -> Option<u64> {
    let size = u64::try_from(cursor.integer(0, TABLE_BOUND - 1)?).ok()?;
    let divides = |divisor: u64| size.is_multiple_of(divisor);
    if size < 2 || (2..).take_while(|d| d * d <= size).any(divides) {
        cursor.error(format!("{size} is not a prime number"));
        return None;
    }
    Some(size)
}

fn cookie(cursor: &Cursor<'_>) -> Option<HashCookie> {
    let mut fields = cursor.fields()?;
    let mut cookie = HashCookie::default();
    let name = fields.need("name", read::filled);
    cookie.path = fields.get("path", read::string).unwrap_or_default().into();
    cookie.ttl = fields.get("ttl", read::duration);
    cookie.attributes = fields.list("attributes", |cursor| {
        let mut fields = cursor.fields()?;
        let name = fields.need("name", read::filled);
        let value = fields.get("value", read::string).unwrap_or_default();
        fields.done();
        Some((Name::from(name?), Name::from(value)))
    });
    fields.done();
    cookie.name = name?.into();
    Some(cookie)
}

// === impl Warmup ===

impl Warmup {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let duration = fields.need("duration", read::positive_duration);
        let minimum = fields.get("minimumPercent", |cursor| {
            let percent = cursor.double()?;
            if !(0.0..=100.0).contains(&percent) || percent.fract() != 0.0 {
                cursor.error(format!("{percent} is not a whole percentage from 0 to 100"));
                return None;
            }
            // Whole and from 0 to 100: checked above.
            Some(percent as u32)
        });
        let aggression = fields.get("aggression", |cursor| {
            let aggression = Real::new(cursor.double()?).filter(|real| real.get() >= 1.0);
            if aggression.is_none() {
                cursor.error("has to be 1 or more");
            }
            aggression
        });
        fields.done();
        Some(Self {
            duration: duration?,
            minimum: minimum.unwrap_or(10),
            aggression: aggression.unwrap_or(Real::ONE),
        })
    }
}
