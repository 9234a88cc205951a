//! A real process: its command line and environment, what it prints on which stream, its exit codes, its end by signals.
//!
//! Without arguments this program is the test; with `child` as its first argument it is a service's command line.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStderr, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use service_kit::config::{
    DatabaseArgs, ListenAddresses, ListenArgs, ShutdownArgs, TelemetryArgs, TlsArgs, parse_cli, settings_json,
    settings_text,
};
use service_kit::readiness::Readiness;
use service_kit::server::ServerBuilder;
use service_kit::telemetry;

/// A service for the test.
#[derive(Debug, Parser)]
#[command(version)]
enum Cli {
    /// Shows what it understood.
    Show(Serve),
    /// Serves health and reflection.
    Serve(Serve),
    /// Prints the settings.
    Print(Serve),
}

#[derive(Debug, clap::Args)]
struct Serve {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    listen: ListenArgs<50061, 9471>,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
    #[command(flatten)]
    shutdown: ShutdownArgs,
    /// A secret of the service.
    #[arg(long, env = "TEST_KEY", hide_env_values = true, value_parser = at_least_eight)]
    test_key: Option<String>,
}

fn at_least_eight(text: &str) -> Result<String, String> {
    if text.len() < 8 { Err("expected at least 8 characters".to_owned()) } else { Ok(text.to_owned()) }
}

fn child() -> ExitCode {
    let parsed = match parse_cli::<Cli>() {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    match parsed.cli {
        Cli::Serve(serve) => return serve_on(serve),
        Cli::Show(serve) => println!("{:?} {:?}", serve.database, ListenAddresses::from(serve.listen)),
        Cli::Print(_) => println!("{}{}", settings_text(&parsed.settings), settings_json(&parsed.settings)),
    }
    ExitCode::SUCCESS
}

fn serve_on(serve: Serve) -> ExitCode {
    let metrics = telemetry::init(&serve.telemetry).unwrap();
    let builder = ServerBuilder::new(serve.listen, serve.tls, serve.shutdown, Readiness::new(&[])).metrics(metrics);
    match tokio::runtime::Runtime::new().unwrap().block_on(builder.serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the child with these variables only.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    command(arguments, variables).output().unwrap()
}

fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env_clear().env("KIT_TEST_CHILD", "1").args(arguments).envs(variables.iter().copied());
    command
}

const URL: (&str, &str) = ("DATABASE_URL", "postgres://me:s3cret@db/app");

/// The one line of a refused command line.
fn refusal(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = run(arguments, variables);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(output.stdout.is_empty() && text.ends_with('\n') && text.trim_end().lines().count() == 1, "{text:?}");
    assert!(!text.contains("s3cret"), "{text}");
    text.trim_end().to_owned()
}

fn stdout(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = run(arguments, variables);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refusals_name_the_variable() {
    let missing = refusal(&["serve"], &[]);
    assert!(
        missing.starts_with("error: DATABASE_URL is missing: set it or pass --database-url <URL> (PostgreSQL URL"),
        "{missing}"
    );
    // An empty variable is an unset one.
    assert!(refusal(&["serve"], &[("DATABASE_URL", "")]).starts_with("error: DATABASE_URL is missing"));

    for (name, value, expected) in [
        ("DATABASE_URL", "mysql://me:s3cret@db/app", "it does not start with postgres://"),
        ("DATABASE_URL", "postgres://me:s3cret@db/app?sslmode=on", "sslmode=on is unknown; expected disable"),
        ("DATABASE_MAX_CONNECTIONS", "0", "0 is not in 1..=1000"),
        ("DATABASE_MAX_CONNECTIONS", "many", "invalid digit"),
        ("LISTEN_ADDR", "50051", "expected IP:PORT such as 0.0.0.0:50051"),
        ("METRICS_ADDR", "localhost:http", "expected IP:PORT"),
        ("LOG_FORMAT", "xml", "expected one of json, text"),
        ("RUST_LOG", "a=b=c", "expected filter directives"),
        ("SHUTDOWN_DRAIN", "soon", "expected a duration such as"),
        ("TEST_KEY", "s3cret", "expected at least 8 characters"),
    ] {
        let line = refusal(&["serve"], &[URL, (name, value)]);
        assert!(line.starts_with(&format!("error: {name} (--")) && line.contains(expected), "{line}");
    }
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (certificate, key) =
        (file("cert.pem", &certified.cert.pem()), file("key.pem", &certified.signing_key.serialize_pem()));
    let empty = file("empty.pem", "s3cret");
    let line = refusal(&["serve"], &[URL, ("TLS_CERT_FILE", &certificate)]);
    assert!(line.starts_with("error: TLS_KEY_FILE is missing"), "{line}");
    // Files are looked at before anything is opened.
    let tls = |certificate, key, authority| {
        [URL, ("TLS_CERT_FILE", certificate), ("TLS_KEY_FILE", key), ("TLS_CLIENT_CA_FILE", authority)]
    };
    for (variables, variable, expected) in [
        (tls("/nope", &key, &certificate), "TLS_CERT_FILE", "cannot be read"),
        (tls(&empty, &key, &certificate), "TLS_CERT_FILE", "holds no certificate"),
        (tls(&certificate, "/nope", &certificate), "TLS_KEY_FILE", "cannot be read"),
        (tls(&certificate, &certificate, &certificate), "TLS_KEY_FILE", "holds no private key"),
        (tls(&certificate, &key, "/nope"), "TLS_CLIENT_CA_FILE", "cannot be read"),
        (tls(&certificate, &key, &key), "TLS_CLIENT_CA_FILE", "holds no certificate"),
    ] {
        let line = refusal(&["show"], &variables);
        assert!(line.starts_with(&format!("error: {variable} (--")) && line.contains(expected), "{line}");
    }
    let line =
        refusal(&["show"], &[("DATABASE_URL", "postgres://me:s3cret@db/app?sslmode=verify-ca&sslrootcert=/nope")]);
    assert!(line.starts_with("error: DATABASE_URL (--") && line.contains("sslrootcert /nope cannot be read"), "{line}");
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = file("other.pem", &other.signing_key.serialize_pem());
    let args = |key: &str| TlsArgs {
        tls_cert_file: Some(certificate.clone().into()),
        tls_key_file: Some(key.into()),
        tls_client_ca_file: None,
    };
    assert!(args(&key).check().is_ok());
    assert!(args(&other).check().unwrap_err().to_string().contains("TLS_CERT_FILE and TLS_KEY_FILE do not fit"));
    assert!(
        refusal(&["serve", "--listen-addr"], &[URL])
            .starts_with("error: LISTEN_ADDR (--listen-addr <IP:PORT>) needs a value")
    );
    assert!(refusal(&["serve", "--colour"], &[URL]).contains("--colour"));
    assert!(refusal(&["sevre"], &[URL]).contains("sevre"));
}

fn values_come_from_flags_variables_and_defaults_in_this_order() {
    let text = stdout(
        &["show", "--listen-addr", "127.0.0.1:1"],
        &[URL, ("LISTEN_ADDR", "127.0.0.1:2"), ("TLS_CERT_FILE", "")],
    );
    assert!(text.contains("grpc: 127.0.0.1:1") && text.contains("metrics: 0.0.0.0:9471"), "{text}");
    assert!(text.contains("database_max_connections: 16") && !text.contains("s3cret"), "{text}");
}

fn help_lists_variables_with_defaults_and_no_secret() {
    let text = stdout(&["serve", "--help"], &[URL, ("TEST_KEY", "s3cret-key"), ("LISTEN_ADDR", "127.0.0.1:7")]);
    for expected in [
        "[env: DATABASE_URL]",
        "[env: LISTEN_ADDR=127.0.0.1:7]",
        "[default: 0.0.0.0:50061]",
        "[default: 16]",
        "[env: TEST_KEY]",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    assert!(!text.contains("s3cret"), "{text}");
    assert!(stdout(&["--version"], &[]).contains(env!("CARGO_PKG_VERSION")));
}

fn print_masks_secrets_and_tells_sources() {
    let text = stdout(&["print", "--database-max-connections=3"], &[URL, ("TEST_KEY", "s3cret-key"), ("RUST_LOG", "")]);
    assert!(!text.contains("s3cret"), "{text}");
    for expected in [
        "DATABASE_URL=postgres://me:********@db/app\n",
        "DATABASE_MAX_CONNECTIONS=3\n",
        "TEST_KEY=********\n",
        "RUST_LOG=info\n",
        "# TLS_CERT_FILE is unset\n",
        r#"{"name":"DATABASE_MAX_CONNECTIONS","secret":false,"source":"command_line","value":"3"}"#,
        r#"{"name":"TEST_KEY","secret":true,"source":"environment","value":"********"}"#,
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
}

/// A serving child and its log.
struct Serving {
    child: Child,
    log: BufReader<ChildStderr>,
    /// The line with the message `listening`.
    listening: serde_json::Value,
    before: Vec<serde_json::Value>,
}

impl Serving {
    #[expect(clippy::zombie_processes, reason = "`end` waits; a panic before it ends the test")]
    fn start(variables: &[(&str, &str)]) -> Self {
        let listen = ["serve", "--listen-addr=127.0.0.1:0", "--metrics-addr=127.0.0.1:0"];
        let all: Vec<_> = [URL].iter().chain(variables).copied().collect();
        let mut child = command(&listen, &all).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut before = Vec::new();
        loop {
            let line = next_line(&mut log).expect("the child ended before it listened");
            if line["message"] == "listening" {
                break Self { child, log, listening: line, before };
            }
            before.push(line);
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Exit code, the rest of the log, and how long it took.
    fn end(mut self) -> (Option<i32>, Vec<serde_json::Value>, Duration) {
        let started = Instant::now();
        let lines = std::iter::from_fn(|| next_line(&mut self.log)).collect();
        (self.child.wait().unwrap().code(), lines, started.elapsed())
    }
}

fn next_line(log: &mut BufReader<ChildStderr>) -> Option<serde_json::Value> {
    let mut line = String::new();
    (log.read_line(&mut line).unwrap() > 0).then(|| serde_json::from_str(&line).expect(&line))
}

fn a_server_logs_json_tells_its_ports_and_ends_on_signals() {
    let quick = [("SHUTDOWN_PROPAGATION", "100ms"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")];
    for signal in ["TERM", "INT"] {
        let serving = Serving::start(&quick);
        assert!(serving.before.iter().any(|line| line["message"].as_str().unwrap().contains("exports no traces")));
        for address in ["grpc_addr", "metrics_addr"] {
            let address: std::net::SocketAddr = serving.listening[address].as_str().unwrap().parse().unwrap();
            assert_ne!(address.port(), 0);
            std::net::TcpStream::connect(address).unwrap();
        }
        serving.signal(signal);
        let (code, lines, took) = serving.end();
        assert_eq!(code, Some(0));
        assert!(lines.iter().any(|line| line["message"] == "stopped"), "{lines:?}");
        assert!((Duration::from_millis(80)..Duration::from_secs(5)).contains(&took), "{took:?}");
    }

    // A second signal cuts the propagation pause short.
    let mut serving = Serving::start(&[("SHUTDOWN_PROPAGATION", "60s")]);
    serving.signal("TERM");
    while next_line(&mut serving.log).unwrap()["message"] != "not ready" {}
    serving.signal("TERM");
    let (code, _, took) = serving.end();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

fn a_port_in_use_is_one_line_and_exit_code_one() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    let output = run(&["serve", "--metrics-addr=127.0.0.1:0"], &[URL, ("LISTEN_ADDR", &address)]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let expected =
        format!("error: LISTEN_ADDR (--listen-addr): cannot listen on {address}: another process listens there");
    assert!(text.starts_with(&expected) && text.trim_end().lines().count() == 1, "{text}");
}

fn main() -> ExitCode {
    if std::env::var_os("KIT_TEST_CHILD").is_some() {
        return child();
    }
    refusals_name_the_variable();
    values_come_from_flags_variables_and_defaults_in_this_order();
    help_lists_variables_with_defaults_and_no_secret();
    print_masks_secrets_and_tells_sources();
    a_server_logs_json_tells_its_ports_and_ends_on_signals();
    a_port_in_use_is_one_line_and_exit_code_one();
    println!("process: ok");
    ExitCode::SUCCESS
}
