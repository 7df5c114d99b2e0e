//! Cases where chance decides.

use super::{Case, Judge, endpoints, group, plain, set};
use mesh_core::model::{
    Balancing, Drop, Endpoint, Fraction, Health, LocalityBalancing, Real, ZoneAware,
};
use std::net::SocketAddr;

pub fn least(bias: f64) -> Balancing {
    Balancing::LeastRequest {
        choices: 2,
        bias: Real::new(bias).unwrap(),
    }
}

/// Where chance decides. Tolerances are five deviations of the difference of two counts.
pub fn chances(
    name: &str,
    balancing: Balancing,
    tolerance: usize,
    backends: &[SocketAddr],
) -> Vec<Case> {
    let mut cases = Vec::new();
    let weigh = |at: usize, endpoint: &mut Endpoint| endpoint.weight = 1 + 3 * (at as u32 % 2);
    let mut case = plain(name, balancing, &backends[..6]);
    case.endpoints = set([group("a", 0, 0, endpoints(&backends[..6], weigh))]);
    case.judge = Judge::Shares(tolerance);
    cases.push(case);

    let mut weighted = plain(&format!("{name}-localities"), balancing, backends);
    weighted.cluster.localities = LocalityBalancing::Weighted;
    let some = |at: usize, endpoint: &mut Endpoint| {
        if at > 0 {
            endpoint.health = Health::Unhealthy;
        }
    };
    weighted.endpoints = set([
        group("a", 0, 1, endpoints(&backends[..4], |_, _| {})),
        group("b", 0, 2, endpoints(&backends[4..7], some)),
        group("own", 0, 3, endpoints(&backends[7..12], |_, _| {})),
    ]);
    weighted.judge = Judge::Shares(tolerance.max(75));
    cases.push(weighted);

    // A quarter of the peers is here.
    for (at_home, called) in [(5, "direct"), (2, "residual"), (0, "elsewhere")] {
        let mut zone = plain(&format!("{name}-zone-{called}"), balancing, backends);
        zone.cluster.localities = LocalityBalancing::ZoneAware(ZoneAware::default());
        let mut groups = vec![
            group("b", 0, 0, endpoints(&backends[at_home..9], |_, _| {})),
            group("c", 0, 0, endpoints(&backends[9..], |_, _| {})),
        ];
        if at_home > 0 {
            groups.push(group(
                "own",
                0,
                0,
                endpoints(&backends[..at_home], |_, _| {}),
            ));
        }
        zone.endpoints = set(groups);
        zone.judge = Judge::Shares(115);
        cases.push(zone);
    }
    cases
}

pub fn dropped(backends: &[SocketAddr]) -> Vec<Case> {
    let mut dropped = plain("dropped", Balancing::RoundRobin, &backends[..1]);
    dropped.endpoints.drops = vec![Drop {
        category: "lb".into(),
        share: Fraction::percent(30.0).unwrap(),
    }];
    dropped.judge = Judge::Shares(105);
    vec![dropped]
}
