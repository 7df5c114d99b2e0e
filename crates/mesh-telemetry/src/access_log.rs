//! Access logs: one line per request, in Envoy's format language.
//!
//! A [`Format`] is compiled once; writing a line allocates nothing where the buffer has room. An
//! [`AccessLogWriter`] takes lines from workers without making them wait.
//!
//! # Operators
//!
//! `%OPERATOR%`, `%OPERATOR(argument)%` or `%OPERATOR(argument):LENGTH%`; `%%` is a percent sign.
//! A missing value is `-`. Anything else is refused by name.
//!
//! | operator | value |
//! |---|---|
//! | `START_TIME(format)` | arrival, UTC, `strftime` with `%f`, `%3f`, `%E3S` |
//! | `REQ(X?Y)`, `RESP(X?Y)`, `TRAILER(X?Y)` | a header of the request as it left, of the response, of its trailers; Y where X is missing. `:METHOD`, `:PATH`, `:AUTHORITY`, `:SCHEME`, `:STATUS` |
//! | `PROTOCOL`, `UPSTREAM_PROTOCOL` | `HTTP/1.1`, `HTTP/2` |
//! | `RESPONSE_CODE` | status, 0 where no response began |
//! | `RESPONSE_CODE_DETAILS` | why, e.g. `via_upstream` |
//! | `RESPONSE_FLAGS` | e.g. `UF,URX` |
//! | `CONNECTION_TERMINATION_DETAILS`, `REQUESTED_SERVER_NAME` | always `-` for plain HTTP |
//! | `BYTES_RECEIVED`, `BYTES_SENT` | bytes of the bodies |
//! | `DURATION` | arrival to end, in milliseconds, as all that follow |
//! | `REQUEST_DURATION` | arrival to the end of the request |
//! | `RESPONSE_DURATION` | arrival to the response's head from upstream |
//! | `RESPONSE_TX_DURATION` | from there to the end |
//! | `UPSTREAM_HOST`, `UPSTREAM_REMOTE_ADDRESS`, `UPSTREAM_LOCAL_ADDRESS` | the endpoint, its address once connected, ours |
//! | `UPSTREAM_CLUSTER`, `UPSTREAM_CLUSTER_RAW` | the cluster's name in statistics, its name |
//! | `UPSTREAM_TRANSPORT_FAILURE_REASON` | why a connection failed |
//! | `UPSTREAM_REQUEST_ATTEMPT_COUNT` | attempts, 0 where no endpoint was chosen |
//! | `DOWNSTREAM_REMOTE_ADDRESS`, `DOWNSTREAM_DIRECT_REMOTE_ADDRESS`, `DOWNSTREAM_LOCAL_ADDRESS` | who calls, as far as a trusted proxy in front says; the connection's addresses; each also `…_WITHOUT_PORT` |
//! | `DOWNSTREAM_LOCAL_PORT` | |
//! | `ROUTE_NAME`, `HOSTNAME` | |
//! | `GRPC_STATUS(CAMEL_STRING \| SNAKE_STRING \| NUMBER)`, `GRPC_STATUS_NUMBER` | |
//!
//! The request is told as it left: with its path normalised and rewritten, and its headers edited
//! ([`Exchange::note_head`](mesh_core::Exchange::note_head)). What only the router itself adds on the
//! way out (attempt counts, timeouts) is not seen.
//!
//! ```
//! use http::{Request, Response};
//! use mesh_core::{Caller, Exchange};
//! use mesh_telemetry::access_log::{Entry, Format};
//! use std::time::{Instant, SystemTime};
//!
//! let format = Format::parse("%REQ(:METHOD)% %REQ(:PATH):4% %RESPONSE_CODE% %REQ(X-USER)%")?;
//! let exchange = Exchange::new(Instant::now(), Caller::default());
//! let mut entry = Entry::new();
//! let request = Request::get("http://reviews/reviews/0").body(()).unwrap();
//! entry.request(&request, SystemTime::now(), format.wanted());
//! entry.response(&Response::new(()), format.wanted());
//!
//! let mut line = Vec::new();
//! format.write(&exchange, &entry, "node-1", &mut line);
//! assert_eq!(line, b"GET /rev 200 -");
//!
//! let error = Format::parse("%REQ(:PATH)% %NONSENSE%").unwrap_err();
//! assert_eq!(error.message(), "at byte 13: unknown operator NONSENSE");
//! # Ok::<(), mesh_core::Invalid>(())
//! ```

mod entry;
mod format;
mod operator;
mod time;
mod tls;
mod writer;

pub use entry::Entry;
pub use format::{Format, Wanted};
pub(crate) use writer::Bell;
pub use writer::{AccessLogWriter, MOST_BUFFERED};
