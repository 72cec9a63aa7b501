//! From sections to settings, and what must hold between them. One file per kind of section.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::PathBuf;

use http::Uri;
use toml::Spanned;
use toml::de::DeValue;

use super::diagnostics::Mistake;
use super::reader::Reader;
use super::settings::{AccessTarget, AdminSettings, CacheStoreSettings, LogSettings, Settings};
use super::units::{duration, positive_duration, positive_size, ratio};
use super::values::{address, flag, network, secret, whole, word};
use crate::cache::persist::PersistParams;
use crate::message::forwarded::{ForwardMode, Forwarding};
use crate::proxy::access_log::{Format, LineParams};
use crate::proxy::limits::Told;
use crate::refusal::Mode;
use crate::traces::TraceParams;

mod classify;
mod consumer;
mod listener;
mod route;
mod upstream;
mod window;

use route::Route;

/// The whole file; `None` only when something was reported.
pub(super) fn settings(file: &mut Reader<'_>) -> Option<Settings> {
    let (workers, drain, state, observe) = file.table("server", |server| {
        let workers = server.value("workers", whole::<usize>(0));
        if workers > MOST_WORKERS {
            server.error(server.span("workers"), Mistake::new(format!("at most {MOST_WORKERS} workers")));
        }
        let state = server.optional("state", word).map(PathBuf::from);
        (workers, server.value("drain", duration), state, server.value("observe", flag))
    });
    let admin = file.optional_table("admin", admin);
    let log = file.table("log", log);
    let traces = file.optional_table("traces", traces).flatten();
    let forwarding = file.table("forwarded", |forwarded| {
        let trusted = unspan(forwarded.list("trusted", network).unwrap_or_default());
        let mode = forwarded.choice("mode", &FORWARD_MODES);
        Forwarding { mode, trusted }
    });
    let limits = file.table("limits", |limits| limits.choice("fields", &LIMIT_FIELDS));
    let cache = file.table("cache", cache);
    let listeners = file.tables("listener", listener::read);
    listener::check(file, &listeners, admin.as_ref());
    let consumers = file.named("consumer", consumer::read);
    consumer::check(file, &consumers);
    let mut upstreams = file.named("upstream", upstream::read);
    window::give(file, &mut upstreams);
    let names: Vec<_> = upstreams.iter().map(|(name, upstream)| (name.get_ref().clone(), upstream.as_ref())).collect();
    let mut routes = file.tables("route", |reader| route::read(reader, &names, cache.max_bytes, !consumers.is_empty()));
    route::check(file, &mut routes);
    warn_of_unused(file, &upstreams, &routes);
    Some(Settings {
        listeners: listeners.into_iter().map(|listener| listener.map(Spanned::into_inner)).collect::<Option<_>>()?,
        admin,
        workers: if workers == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { workers },
        drain,
        state,
        observe,
        log,
        traces,
        forwarding,
        limits,
        cache,
        consumers: consumers.into_iter().map(|(_, consumer)| consumer).collect::<Option<_>>()?,
        upstreams: upstreams.into_iter().map(|(_, upstream)| upstream).collect::<Option<_>>()?,
        routes: routes.into_iter().map(|route: Route| route.settings).collect::<Option<_>>()?,
    })
}

fn admin(admin: &mut Reader<'_>) -> AdminSettings {
    let listen = admin.value("listen", address);
    let token = admin.optional("token", secret);
    if !listen.ip().is_loopback() && !admin.has("token") {
        let mistake = Mistake::new("whoever reaches the admin listener may read the configuration; nobody may act");
        admin.warn(admin.span("listen"), mistake.hint("give it a `token`, or listen on 127.0.0.1"));
    }
    let token_for_metrics = admin.choice("metrics", &[("open", false), ("token", true)]);
    if token_for_metrics && !admin.has("token") {
        admin.error(admin.span("metrics"), Mistake::new("`metrics = \"token\"` needs a `token`"));
    }
    AdminSettings { listen, token, token_for_metrics }
}

fn cache(cache: &mut Reader<'_>) -> CacheStoreSettings {
    let max_bytes = cache.value("size", positive_size);
    let fills_bytes = cache.value("fills", positive_size);
    let persist = cache.optional_table("persist", |persist| {
        let path = persist.required("file", word);
        let every = persist.value("every", positive_duration);
        let most = persist.optional("max", positive_size).unwrap_or(max_bytes);
        Some(PersistParams { file: PathBuf::from(path?), every, max_bytes: most })
    });
    CacheStoreSettings { max_bytes, fills_bytes, persist: persist.flatten() }
}

fn log(log: &mut Reader<'_>) -> LogSettings {
    let access = log.value("access", |value| {
        Ok(match word(value)?.as_str() {
            "off" => AccessTarget::Off,
            "stdout" => AccessTarget::Stdout,
            // A slip such as `stdour` would make a file of that name.
            path if !path.contains(['/', '.']) => {
                let mistake = Mistake::new(format!("`{path}` is not possible here"));
                return Err(mistake.hint("possible here: stdout, off, or a path such as \"./access.log\""));
            }
            path => AccessTarget::File(PathBuf::from(path)),
        })
    });
    let sample = NonZeroU32::new(log.value("sample", whole(1))).unwrap_or(NonZeroU32::MIN);
    LogSettings {
        access,
        lines: LineParams { query: log.value("query", flag), sample },
        format: log.choice("format", &[("json", Format::Json), ("text", Format::Text)]),
    }
}

fn traces(traces: &mut Reader<'_>) -> Option<TraceParams> {
    let otlp = traces.required("otlp", collector);
    let sample = traces.value("sample", ratio);
    let service = traces.value("service", word);
    Some(TraceParams { otlp: otlp?, sample, service })
}

/// A collector: plain http, as it stands on this machine or beside it.
fn collector(value: &DeValue<'_>) -> Result<Uri, Mistake> {
    const HINT: &str = "write it as \"http://127.0.0.1:4318\"";
    let written = word(value)?;
    let uri: Uri = written.parse().map_err(|_| Mistake::new(format!("`{written}` is not a URL")).hint(HINT))?;
    match uri.scheme_str() {
        Some("https") => Err(Mistake::new("traces are sent over plain http only")
            .hint("send them to a collector on this machine, and let that speak https")),
        Some("http") if uri.host().is_some_and(|host| !host.is_empty()) && uri.query().is_none() => Ok(uri),
        _ => Err(Mistake::new(format!("`{written}` is not the address of a collector")).hint(HINT)),
    }
}

/// Upstreams that no route leads to. Not while a route names one that is not there: it may mean any of them.
fn warn_of_unused(file: &mut Reader<'_>, upstreams: &[upstream::Named], routes: &[Route]) {
    let used: Vec<_> = routes.iter().map(|route| route.upstream.as_ref().map(|name| name.get_ref().as_str())).collect();
    let is_known = |name: &str| upstreams.iter().any(|(upstream, _)| upstream.get_ref() == name);
    if used.is_empty() || !used.iter().all(|name| name.is_some_and(is_known)) {
        return;
    }
    for (name, _) in upstreams {
        let stands_in = |route: &Route| route.spare.as_ref().is_some_and(|spare| spare.get_ref() == name.get_ref());
        if !used.contains(&Some(name.get_ref().as_str())) && !routes.iter().any(stands_in) {
            file.warn(name.span(), Mistake::new(format!("no route leads to the upstream `{}`", name.get_ref())));
        }
    }
}

/// Reports every value that was there before.
fn no_twice<K: std::hash::Hash + Eq>(
    file: &mut Reader<'_>,
    values: impl IntoIterator<Item = (K, Range<usize>)>,
    mistake: impl Fn(&K) -> Mistake,
) {
    let mut seen = HashSet::new();
    for (value, span) in values {
        if seen.contains(&value) {
            file.error(span, mistake(&value));
        }
        seen.insert(value);
    }
}

/// A slashed path of a request, for what is sent to an upstream.
fn absolute_path(value: &DeValue<'_>) -> Result<String, Mistake> {
    let path = word(value)?;
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !path.starts_with('/') {
        return Err(Mistake::new("a path begins with `/`").hint(format!("did you mean `/{path}`?")));
    }
    if is_plain { Ok(path) } else { Err(Mistake::new("other characters than visible ASCII are written as %XX")) }
}

fn unspan<T>(values: Vec<Spanned<T>>) -> Vec<T> {
    values.into_iter().map(Spanned::into_inner).collect()
}

/// What a policy does with its verdict.
const MODES: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("shadow", Mode::Shadow)];

const FORWARD_MODES: [(&str, ForwardMode); 4] = [
    ("x-forwarded", ForwardMode::XForwarded),
    ("forwarded", ForwardMode::Forwarded),
    ("both", ForwardMode::Both),
    ("off", ForwardMode::Off),
];
const LIMIT_FIELDS: [(&str, Told); 4] =
    [("ratelimit", Told::RATELIMIT), ("x-ratelimit", Told::X_RATELIMIT), ("both", Told::BOTH), ("off", Told::NOTHING)];
/// More event loops than any machine has cores; a slip, and each costs memory.
const MOST_WORKERS: usize = 1024;
