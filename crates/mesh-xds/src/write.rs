//! From the mesh model to protobuf, in Istio's and Envoy's own terms.

pub mod route;
