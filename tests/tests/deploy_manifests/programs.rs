//! The manifests against the programs: settings, ports and arguments are those that the programs take, and a pod that waits does what
//! its probes are told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use local_pair::files::free_port;
use local_pair::health::is_serving;
use tests::{ProgramRun, Service, TestDatabase, run_program};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::objects::{Objects, Pod};
use crate::{assert_none, render};

/// Flags of `migrate up` and `migrate verify` as the contract fixes them.
const CONTRACT_FLAGS: [&str; 4] = ["--output", "--lock-wait", "--connect-wait", "--backup-dir"];
/// The volume of the archives in the manifests: a directory of the test's own stands for it.
const BACKUP_VOLUME: &str = "/backup";

/// What stands in a Secret, for programs that only read their settings.
fn secret(variable: &str) -> &'static str {
    match variable {
        "DATABASE_URL" => "postgres://role:password@database.example.com:5432/service?sslmode=require",
        // 32 bytes.
        "KEY_ENCRYPTION_KEY" | "PAGE_TOKEN_KEY" => "dGhlIHRlc3RzIG5lZWQgMzIgYnl0ZXMgaGVyZS4uLi4=",
        "AUTH_CLIENT_ID" => "task-service",
        "AUTH_CLIENT_SECRET" => "bm90IGEgc2VjcmV0LCBidXQgYW4gZXhhbXBsZSBvZiBvbmU=",
        "SMTP_URL" => "smtps://user:password@mail.example.com",
        _ => panic!("{variable} comes from a Secret: give it an example here"),
    }
}

/// The environment of a pod's container, Secrets filled with examples.
fn environment(objects: &Objects, pod: &Pod<'_>) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for source in pod.container().env_from.iter().flatten() {
        let name = &source.config_map_ref.as_ref().expect("only ConfigMaps are taken whole").name;
        let map = objects.config_maps.iter().find(|map| map.metadata.name.as_ref() == Some(name));
        environment.extend(map.expect("parts.rs holds the reference").data.clone().unwrap_or_default());
    }
    for variable in pod.container().env.iter().flatten() {
        let value = variable.value.clone().unwrap_or_else(|| secret(&variable.name).to_owned());
        environment.insert(variable.name.clone(), value);
    }
    environment
}

async fn run(service: Service, arguments: &[&str], environment: &BTreeMap<String, String>) -> ProgramRun {
    let environment: Vec<_> = environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    run_program(service, arguments, &environment, "").await
}

/// Every setting of a server as its program reads it, defaults included; secrets masked.
pub(crate) async fn settings(objects: &Objects, pod: &Pod<'_>) -> BTreeMap<String, String> {
    let run = run(pod.service(), &["config", "print", "--output", "json"], &environment(objects, pod)).await;
    assert_eq!(run.code, 0, "{}: {run:#?}", pod.owner);
    let settings: Vec<serde_json::Value> = serde_json::from_str(&run.stdout).unwrap();
    let named = |setting: serde_json::Value| {
        Some((setting["name"].as_str()?.to_owned(), setting["value"].as_str()?.to_owned()))
    };
    settings.into_iter().filter_map(named).collect()
}

/// The seconds of a duration such as `5s`.
pub(crate) fn duration(text: &str) -> u64 {
    text.strip_suffix('s')
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or_else(|| panic!("{text}: expected whole seconds"))
}

/// Names that `--help` shows as `[env: NAME=…]`.
async fn variables(service: Service, command: &[&str]) -> BTreeSet<String> {
    let help = help(service, command).await;
    let names = help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
    names.map(str::to_owned).collect()
}

async fn help(service: Service, command: &[&str]) -> String {
    let run = run_program(service, &[command, &["--help"]].concat(), &[], "").await;
    assert_eq!(run.code, 0, "{} {command:?} --help: {run:#?}", service.name());
    run.stdout
}

/// A container's arguments: the words of the subcommand, and what comes after.
fn arguments<'a>(pod: &Pod<'a>) -> (Vec<&'a str>, Vec<&'a str>) {
    let arguments: Vec<_> = pod.container().args.iter().flatten().map(String::as_str).collect();
    let words = arguments.iter().take_while(|word| !word.starts_with('-')).count();
    (arguments[..words].to_vec(), arguments[words..].to_vec())
}

#[tokio::test]
async fn every_variable_and_argument_is_one_that_the_program_has() {
    let mut breaches = Vec::new();
    for rendered in render::all() {
        for pod in rendered.objects.pods() {
            let (command, flags) = arguments(&pod);
            let expected: &[&str] = match pod.component() {
                "server" => &["serve"],
                "migrate" => &["migrate", "up"],
                _ => &["migrate", "verify"],
            };
            if command != expected || pod.container().command.is_some() {
                breaches
                    .push(format!("{}: {}: runs {command:?}; expected {expected:?}", rendered.directory, pod.owner));
                continue;
            }
            let help = help(pod.service(), &command).await;
            for flag in flags.iter().filter(|flag| flag.starts_with("--")) {
                if !(CONTRACT_FLAGS.contains(flag) && help.contains(&format!("{flag} <"))) {
                    breaches.push(format!("{}: {}: {flag}", rendered.directory, pod.owner));
                }
            }
            // `migrate` takes the database before its own subcommand.
            let known = variables(pod.service(), &command[..1]).await;
            for variable in
                environment(&rendered.objects, &pod).into_keys().filter(|variable| !known.contains(variable))
            {
                breaches.push(format!("{}: {}: {variable}", rendered.directory, pod.owner));
            }
        }
    }
    assert_none(&breaches, "the program's --help does not know these:");
}

#[tokio::test]
async fn the_settings_are_accepted_and_the_ports_are_those_that_are_listened_on() {
    for rendered in render::all() {
        for pod in rendered.objects.servers() {
            let environment = environment(&rendered.objects, &pod);
            let check = run(pod.service(), &["config", "check"], &environment).await;
            assert_eq!((check.code, check.stderr.as_str()), (0, ""), "{}: {}", rendered.directory, pod.owner);
            let settings = settings(&rendered.objects, &pod).await;
            for (port, variable) in [("grpc", "LISTEN_ADDR"), ("metrics", "METRICS_ADDR")] {
                let ports = pod.container().ports.iter().flatten();
                let named: Vec<_> = ports
                    .filter(|found| found.name.as_deref() == Some(port))
                    .map(|found| found.container_port)
                    .collect();
                let address: SocketAddr = settings[variable].parse().unwrap();
                assert!(
                    address.ip().is_unspecified(),
                    "{}: {variable}={address}: a pod listens on all its addresses",
                    pod.owner
                );
                assert_eq!(named, [i32::from(address.port())], "{}: {}: port {port}", rendered.directory, pod.owner);
            }
        }
    }
}

/// A server with the environment of its pod on an empty database, on free ports.
struct Waiting {
    grpc: SocketAddr,
    metrics: SocketAddr,
    database: TestDatabase,
    process: tokio::process::Child,
}

impl Waiting {
    async fn start(objects: &Objects, pod: &Pod<'_>, extra: &[(&str, String)]) -> Self {
        let database = TestDatabase::empty().await;
        let [grpc, metrics] = [(), ()].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port().unwrap())));
        let mut environment = environment(objects, pod);
        let own = [
            ("DATABASE_URL", database.runtime_url()),
            ("LISTEN_ADDR", grpc.to_string()),
            ("METRICS_ADDR", metrics.to_string()),
        ];
        environment.extend(own.iter().chain(extra).map(|(name, value)| ((*name).to_owned(), value.clone())));
        let mut command = tokio::process::Command::new(pod.service().program());
        command.args(pod.container().args.iter().flatten()).env_clear().envs(environment);
        let process = command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        Self { grpc, metrics, database, process }
    }

    /// The status line of `GET /livez`; empty while nobody listens.
    async fn livez(&self) -> String {
        let Ok(mut stream) = TcpStream::connect(self.metrics).await else { return String::new() };
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }
}

/// Asks until the answer is yes, at most half a minute.
async fn eventually(what: &str, ask: impl AsyncFn() -> bool) {
    for _ in 0..300 {
        if ask().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within half a minute: {what}");
}

#[tokio::test]
async fn pods_are_alive_and_not_ready_until_the_jobs_have_run() {
    let objects = &render::overlay("overlays/dev").objects;
    let servers = objects.servers();
    let of = |service| servers.iter().find(|pod| pod.service() == service).expect("a Deployment of each service");
    let auth = Waiting::start(objects, of(Service::Auth), &[]).await;
    let peer = [("AUTH_SERVICE_URL", format!("http://{}", auth.grpc))];
    let task = Waiting::start(objects, of(Service::Task), &peer).await;
    let mut both = [(Service::Auth, auth), (Service::Task, task)];

    for (service, waiting) in &mut both {
        eventually("GET /livez answers 200", async || waiting.livez().await == "HTTP/1.1 200 OK").await;
        assert!(!is_serving(waiting.grpc).await, "{} is ready without its schema", service.name());
    }
    let archives = tempfile::tempdir().unwrap();
    let volume = archives.path().display().to_string();
    for (service, waiting) in &both {
        let jobs = objects.all_jobs();
        let job = |component: &str| {
            let (pod, _) =
                jobs.iter().find(|(pod, _)| pod.service() == *service && pod.component() == component).unwrap();
            let (command, flags) = arguments(pod);
            let here = |flag: &str| if flag == BACKUP_VOLUME { volume.clone() } else { flag.to_owned() };
            command.into_iter().chain(flags).map(here).collect::<Vec<String>>()
        };
        let run_job = async |service, arguments: &[String], environment: &[(&str, &str)]| {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            run_program(service, &arguments, environment, "").await
        };
        let (migrator, runtime) = (waiting.database.migrator_url(), waiting.database.runtime_url());
        let early = run_job(*service, &job("verify"), &[("DATABASE_URL", &runtime)]).await;
        assert_eq!(early.code, 4, "the CronJob before the Job: {early:#?}");
        let up = run_job(*service, &job("migrate"), &[("DATABASE_URL", &migrator)]).await;
        assert_eq!(up.code, 0, "the migration Job: {up:#?}");
        let verify = run_job(*service, &job("verify"), &[("DATABASE_URL", &runtime)]).await;
        assert_eq!(verify.code, 0, "the CronJob after it: {verify:#?}");
    }
    // As DEPLOY.md says: the account with which task-service follows revocations.
    let follower = ["--client-id", secret("AUTH_CLIENT_ID"), "--permission", "tokens.introspect", "--secret-stdin"];
    let runtime = both[0].1.database.runtime_url();
    let arguments = [&["admin", "service-account"][..], &follower].concat();
    let made =
        run_program(Service::Auth, &arguments, &[("DATABASE_URL", &runtime)], secret("AUTH_CLIENT_SECRET")).await;
    assert_eq!(made.code, 0, "{made:#?}");
    for (service, waiting) in &mut both {
        eventually(&format!("{} is ready", service.name()), async || is_serving(waiting.grpc).await).await;
        assert!(waiting.process.try_wait().unwrap().is_none(), "{} still runs", service.name());
    }
}
