//! Commands that ask a running vaxel over its admin listener.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use http::Uri;
use serde_json::{Value, json};

use super::Failure;
use crate::admin::client::{self, Client};
use crate::admin::{Asked, advice, text};
use crate::config;
use crate::gateway::Gateway;

/// Which running vaxel, and how it knows us.
#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    /// Its admin listener.
    #[arg(long, env = "VAXEL_ADMIN", default_value = "http://127.0.0.1:9900")]
    admin: Uri,
    /// Its admin token. Others on this machine may read a command line: better in the environment, or in a file.
    #[arg(long, env = "VAXEL_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file that holds the token.
    #[arg(long, conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("extent").required(true).args(["url", "prefix", "group", "route", "upstream", "all"])))]
pub(super) struct PurgeArgs {
    /// The answers to this URL, as clients ask for it; all variants, whoever's they are.
    url: Option<String>,
    /// The answers to all URLs that begin so.
    #[arg(long)]
    prefix: Option<String>,
    /// The answers their origin has put into this group (Cache-Groups, Surrogate-Key, Cache-Tag, xkey).
    #[arg(long)]
    group: Option<String>,
    /// Of the group: that of this origin alone, such as http://erp.example.
    #[arg(long, requires = "group")]
    origin: Option<String>,
    /// The answers to all URLs this route may take.
    #[arg(long)]
    route: Option<String>,
    /// The answers of this upstream.
    #[arg(long)]
    upstream: Option<String>,
    /// All answers.
    #[arg(long)]
    all: bool,
    /// Make them stale, in place of taking them out: they still stand in where a stale answer may.
    #[arg(long)]
    soft: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(super) struct CacheArgs {
    /// What a request for this URL would get, and why; the whole cache if not given.
    url: Option<String>,
    /// A field of the request, as `NAME: VALUE`.
    #[arg(long = "header", short = 'H', requires = "url")]
    headers: Vec<String>,
    /// Its method.
    #[arg(long, short = 'X', default_value = "GET")]
    method: String,
    /// The address it comes from.
    #[arg(long, requires = "url")]
    client: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The request's method.
    method: String,
    /// Its URL, as clients ask for it.
    url: String,
    /// A field of it, as `NAME: VALUE`.
    #[arg(long = "header", short = 'H')]
    headers: Vec<String>,
    /// The address it comes from.
    #[arg(long)]
    client: Option<String>,
    /// Explain by this configuration file, as a vaxel that has just been started would act; no process is asked.
    #[arg(long, short)]
    config: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    /// The id in the error body, the field Vaxel-Request-Id or the access log; or the X-Request-Id its client gave it.
    /// The latest requests worth telling of if not given.
    #[arg(conflicts_with_all = ["reason", "latest"])]
    id: Option<String>,
    /// Of those: the ones refused for this reason (such as queue.full), or kept because they were refused, failed,
    /// left, broken, retried, stale, waited, slow, sampled.
    #[arg(long)]
    reason: Option<String>,
    /// How many.
    #[arg(long, default_value_t = 20)]
    latest: usize,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(super) struct AdviseArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(super) struct GearArgs {
    /// Which upstream.
    upstream: String,
    /// What to do.
    #[arg(value_parser = ["drive", "eco", "limp", "park", "release"])]
    gear: String,
    /// How long it is held.
    #[arg(long = "for", default_value = "1h")]
    span: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(super) struct BreakerArgs {
    /// Which upstream.
    upstream: String,
    /// What to do.
    #[arg(value_parser = ["open", "closed", "release"])]
    hold: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// Do not ask whether it is meant.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Explains what would become of a request.
pub(super) fn explain(args: &ExplainArgs) -> Result<ExitCode, Failure> {
    let target = client::request_target("/explain", &args.url, &args.method, args.client.as_deref(), &args.headers);
    let told = match &args.config {
        None => args.admin.run(async |client| client.get(&target).await)?,
        Some(file) => {
            let Some(told) = explained_by(file, &target)? else { return Ok(ExitCode::FAILURE) };
            told
        }
    };
    args.admin.show(&told, text::explanation)
}

/// By a configuration that nobody serves; `None`: it has mistakes, which are printed.
fn explained_by(file: &Path, target: &str) -> Result<Option<Value>, Failure> {
    let mut settings = match config::load(file) {
        Ok(loaded) => loaded.settings,
        Err(problems) => {
            eprintln!("{problems}");
            return Ok(None);
        }
    };
    // What a running vaxel has stored is its own.
    settings.cache.persist = None;
    let asked = Asked::read(target.split_once('?').map_or("", |(_, query)| query))?;
    let handle = Gateway::builder().settings(settings).build()?;
    let moment = handle.clock().moment();
    handle.upstreams().iter().for_each(|upstream| upstream.shift(moment));
    Ok(Some(json!(handle.explain(&asked.parts, asked.peer()))))
}

/// Tells what became of one request, or lists the latest.
pub(super) fn why(args: &WhyArgs) -> Result<ExitCode, Failure> {
    let target = match &args.id {
        Some(id) => client::target("/why", &[("id", id)]),
        None => {
            let latest = args.latest.to_string();
            let reason = args.reason.as_deref().map(|reason| ("reason", reason));
            client::target("/why", &reason.into_iter().chain([("limit", &*latest)]).collect::<Vec<_>>())
        }
    };
    let accounts = args.admin.run(async |client| client.get(&target).await)?;
    args.admin.show(&accounts, text::accounts)
}

/// Shows how it stands.
pub(super) fn status(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let status = args.admin.run(async |client| client.get("/status").await)?;
    args.admin.show(&status, text::status)
}

/// Loads the configuration anew.
pub(super) fn reload(args: &ReloadArgs) -> Result<ExitCode, Failure> {
    let answer = args.admin.run(async |client| client.post("/reload", &json!({})).await)?;
    args.admin.show(&answer, text::reloaded)
}

/// Ends the process, if that is meant.
pub(super) fn drain(args: &DrainArgs) -> Result<ExitCode, Failure> {
    if !args.yes && !is_meant(&args.admin.admin)? {
        return Err("it goes on: nobody said that it is to end".into());
    }
    let answer = args.admin.run(async |client| client.post("/drain", &json!({})).await)?;
    args.admin.show(&answer, text::draining)
}

fn is_meant(admin: &Uri) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(format!("the process at {admin} would end: give --yes if that is meant").into());
    }
    eprint!("The process at {admin} will end. Type drain if that is meant: ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim() == "drain")
}

/// Tells what to do next.
pub(super) fn advise(args: &AdviseArgs) -> Result<ExitCode, Failure> {
    let told = args.admin.run(async |client| client.get("/advice").await)?;
    args.admin.show(&told, advice::text)
}

/// Holds a gear, or lets go; then shows how the upstreams stand.
pub(super) fn gear(args: &GearArgs) -> Result<ExitCode, Failure> {
    let order = match args.gear.as_str() {
        "release" => json!({ "upstream": args.upstream }),
        gear => json!({ "upstream": args.upstream, "gear": gear, "for": args.span }),
    };
    args.admin.steer("/gear", &order)
}

/// Holds a breaker, or lets go; then shows how the upstreams stand.
pub(super) fn breaker(args: &BreakerArgs) -> Result<ExitCode, Failure> {
    let order = match args.hold.as_str() {
        "release" => json!({ "upstream": args.upstream }),
        hold => json!({ "upstream": args.upstream, "hold": hold }),
    };
    args.admin.steer("/breaker", &order)
}

/// Purges.
pub(super) fn purge(args: PurgeArgs) -> Result<ExitCode, Failure> {
    let PurgeArgs { url, prefix, group, origin, route, upstream, all, soft, admin } = args;
    let order = json!({
        "url": url, "prefix": prefix, "group": group, "origin": origin, "route": route, "upstream": upstream,
        "all": all, "soft": soft,
    });
    let answer = admin.run(async |client| client.post("/purge", &order).await)?;
    admin.show(&answer, text::purged)
}

/// Shows the cache, or what one request would get.
pub(super) fn cache(args: &CacheArgs) -> Result<ExitCode, Failure> {
    let Some(url) = &args.url else {
        let report = args.admin.run(async |client| client.get("/cache").await)?;
        return args.admin.show(&report, text::report);
    };
    let target = client::request_target("/cache/entry", url, &args.method, args.client.as_deref(), &args.headers);
    let seen = args.admin.run(async |client| client.get(&target).await)?;
    args.admin.show(&seen, text::inspection)
}

impl AdminArgs {
    fn steer(&self, target: &str, order: &Value) -> Result<ExitCode, Failure> {
        let report = self.run(async |client| {
            client.post(target, order).await?;
            client.get("/upstreams").await
        })?;
        self.show(&report, text::upstreams)
    }

    fn run(&self, ask: impl AsyncFnOnce(&Client) -> Result<Value, client::ClientError>) -> Result<Value, Failure> {
        let client = self.client()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(ask(&client))?)
    }

    /// Who asks.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let read = self.token_file.as_ref().map(|file| {
            std::fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
        });
        let read = read.transpose()?;
        let token = read.as_deref().or(self.token.as_deref()).map(str::trim);
        Ok(Client::new(&self.admin, token)?)
    }

    fn show(&self, answer: &Value, text: impl Fn(&Value) -> String) -> Result<ExitCode, Failure> {
        let shown = if self.json { format!("{answer:#}") } else { text(answer) };
        say!("{}", shown.trim_end());
        Ok(ExitCode::SUCCESS)
    }
}
