//! Policies with the action CUSTOM: rules that only say who is to be asked, and whom they ask (istiod's
//! `authz/builder`).

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::Name;
use mesh_core::model::{
    Ask, AskGrpc, AskHttp, Authz, AuthzAction, AuthzRules, External, StringMatch,
};

use super::{DRY_RUN, Judges, Naming, is_true, policies_of};
use crate::compile::Compiler;
use crate::spec::extension_provider::Check;
use crate::spec::{AuthorizationPolicy, Meta};

/// What the names of their rules begin with, and what is noted of them under.
const MATCHED: &str = "istio-ext-authz";
const NOTED: &str = "istio_ext_authz_";
/// What the names of rules end with that deny because nobody can be asked.
const BAD: &str = "-deny-due-to-bad-CUSTOM-action";

/// Adds what the policies come to: for each provider one set of rules and whom to ask.
pub(super) fn judges(
    compiler: &mut Compiler<'_>,
    policies: &[(&Meta, &AuthorizationPolicy)],
    judges: &mut Judges,
) {
    let mut by_provider: BTreeMap<&str, Vec<(&Meta, &AuthorizationPolicy)>> = BTreeMap::new();
    for (meta, spec) in policies {
        let dry = meta.annotations.get(DRY_RUN);
        if dry.is_some_and(|value| is_true(value)) {
            let message = "not supported: a policy on trial that asks a service; it is left out";
            compiler.fail(meta, meta.at, "action", message.to_owned());
            continue;
        }
        let provider = spec.provider.as_ref();
        let provider = provider.map_or("", |provider| &provider.value);
        by_provider.entry(provider).or_default().push((meta, spec));
    }
    let several = by_provider.len() > 1;
    for (provider, policies) in by_provider {
        let external = match several {
            true => {
                Err("a workload can have one provider, and other policies name another".to_owned())
            }
            false => external(compiler, provider),
        };
        let prefix = format!("{MATCHED}-{provider}-");
        let external = external.map_err(|message| {
            for (meta, spec) in &policies {
                let at = spec.provider.as_ref().map_or(meta.at, |name| name.at);
                let message = format!("{message}: what its rules match is denied");
                compiler.fail(meta, at, "provider.name", message);
            }
        });
        for bytes in [false, true] {
            let naming = Naming {
                prefix: &prefix,
                suffix: if external.is_err() { BAD } else { "" },
            };
            let mut rules = AuthzRules::new(AuthzAction::Deny, []);
            for (meta, spec) in &policies {
                policies_of(compiler, meta, spec, naming, bytes, &mut rules);
            }
            rules.policies.sort_by(|a, b| a.name.cmp(&b.name));
            let mut authz = Authz::default();
            match &external {
                Err(()) => authz.rules = Some(rules),
                // Over HTTP nobody can be asked about connections, and as with istiod nobody is.
                Ok(External {
                    ask: Ask::Http(_), ..
                }) if bytes => continue,
                Ok(external) => {
                    let mut external = external.clone();
                    external.only = Some(StringMatch::Prefix(prefix.clone()));
                    authz.trial = Some(rules);
                    authz.trial_prefix = Name::from(NOTED);
                    if bytes {
                        external.stat_prefix = Name::from("tcp.");
                        external.status_on_error = 403;
                        external.body = None;
                        external.clear_route = false;
                    }
                    authz.external = Some(external);
                }
            }
            match bytes {
                false => judges.requests.push(Arc::new(authz)),
                true => {
                    authz.stat_prefix = Name::from("tcp.");
                    judges.connections.push(Arc::new(authz));
                }
            }
        }
    }
}

/// Whom a provider asks.
fn external(compiler: &mut Compiler<'_>, provider: &str) -> Result<External, String> {
    let providers = &compiler.mesh.extension_providers;
    let found = providers.iter().find(|one| one.name == provider);
    let found = found.ok_or_else(|| {
        format!("there is no provider {provider:?} in the mesh's extensionProviders")
    })?;
    let check = found.check.as_ref();
    let check =
        check.ok_or_else(|| format!("the provider {provider:?} is none that can be asked"))?;
    let host = host(compiler, check).ok_or_else(|| {
        format!(
            "the provider {provider:?} names {:?}, which there is not",
            check.service
        )
    })?;
    let cluster = crate::names::outbound(check.port, "", &host);
    let ask = match &check.http {
        None => {
            let mut ask = AskGrpc::default();
            // What names a cluster cannot name a host.
            ask.authority = cluster.replace('|', "_.").into();
            Ask::Grpc(ask)
        }
        Some(http) => {
            let mut ask = AskHttp::default();
            ask.path_prefix = http.path_prefix.as_str().into();
            ask.uri = format!("http://{host}").into();
            ask.headers.clone_from(&http.told);
            ask.add.clone_from(&http.added);
            ask.upstream.clone_from(&http.upstream);
            ask.deny.clone_from(&http.deny);
            ask.allow.clone_from(&http.allow);
            Ask::Http(ask)
        }
    };
    let mut external = External::new(cluster, ask);
    external.timeout = Some(check.timeout);
    external.fail_open = check.fail_open;
    external.status_on_error = check.status_on_error;
    external.body = check.body;
    external.clear_route = check.clear_route_cache;
    Ok(external)
}

/// The host of a provider's service: `host` or `namespace/host`.
fn host(compiler: &mut Compiler<'_>, check: &Check) -> Option<String> {
    let (namespace, host) = match check.service.split_once('/') {
        Some((namespace, host)) => (Some(namespace), host),
        None => (None, check.service.as_str()),
    };
    let entry = compiler
        .service(host)
        .filter(|entry| namespace.is_none_or(|namespace| entry.namespace() == namespace));
    entry.map(|entry| entry.host().to_owned())
}
