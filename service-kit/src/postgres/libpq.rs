//! `DATABASE_URL` for programs on libpq (`pg_dump`, `psql`): the same server, user and TLS through libpq's environment
//! variables (PostgreSQL docs, "Environment Variables"), so that nothing stands in an argument list.

use std::ffi::OsString;
use std::path::Path;

use secrecy::SecretSlice;
use tokio_postgres::config::{ChannelBinding, Host, LoadBalanceHosts, TargetSessionAttrs};

use super::url::CONNECT_TIMEOUT;
use super::{DatabaseUrl, TlsMode, TlsRoots};

/// Where systems keep their authorities as one file: libpq before version 16 knows no `sslrootcert=system`, and later
/// ones take it for `verify-full` only.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

impl DatabaseUrl {
    /// Everything but the password, as names and values of libpq's variables. What is not named here is at libpq's default
    /// in an environment that is otherwise empty.
    pub fn libpq_environment(&self) -> Vec<(&'static str, OsString)> {
        let config = self.config();
        let mut found: Vec<(&'static str, OsString)> = Vec::new();
        let mut put = |name, value: OsString| {
            if !value.is_empty() {
                found.push((name, value));
            }
        };
        put("PGHOST", joined(config.get_hosts().iter().map(host)));
        put("PGHOSTADDR", joined(config.get_hostaddrs().iter().map(|address| address.to_string().into())));
        // Always said: the default port is compiled into libpq and differs between builds.
        let ports = config.get_ports();
        let ports = if ports.is_empty() { &[5432] } else { ports };
        put("PGPORT", joined(ports.iter().map(|port| port.to_string().into())));
        put("PGUSER", config.get_user().unwrap_or_default().into());
        put("PGDATABASE", config.get_dbname().unwrap_or_default().into());
        put("PGOPTIONS", config.get_options().unwrap_or_default().into());
        put("PGAPPNAME", config.get_application_name().unwrap_or_default().into());
        // Whole seconds; libpq knows no shorter limit than 2.
        let timeout = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        put("PGCONNECT_TIMEOUT", timeout.as_millis().div_ceil(1000).max(2).to_string().into());
        put("PGSSLMODE", self.tls_mode().name().into());
        put("PGSSLROOTCERT", self.libpq_roots().unwrap_or_default());
        match config.get_channel_binding() {
            ChannelBinding::Disable => put("PGCHANNELBINDING", "disable".into()),
            ChannelBinding::Require => put("PGCHANNELBINDING", "require".into()),
            _ => {}
        }
        if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
            put("PGLOADBALANCEHOSTS", "random".into());
        }
        match config.get_target_session_attrs() {
            TargetSessionAttrs::ReadWrite => put("PGTARGETSESSIONATTRS", "read-write".into()),
            TargetSessionAttrs::ReadOnly => put("PGTARGETSESSIONATTRS", "read-only".into()),
            _ => {}
        }
        // Ours has no GSSAPI: a ticket of whoever starts the program must not change the way in.
        put("PGGSSENCMODE", "disable".into());
        found
    }

    /// The password, decoded: bytes, as it need not be UTF-8.
    pub fn password(&self) -> Option<SecretSlice<u8>> {
        self.config().get_password().map(|password| SecretSlice::from(password.to_vec()))
    }

    fn libpq_roots(&self) -> Option<OsString> {
        match (self.tls_roots(), self.tls_mode()) {
            (Some(TlsRoots::File(path)), _) => Some(path.into()),
            (Some(TlsRoots::System), _) | (None, TlsMode::VerifyCa | TlsMode::VerifyFull) => Some(system_roots()),
            (None, _) => None,
        }
    }
}

/// The file that OpenSSL is told to trust, else the system's, else the word for it.
fn system_roots() -> OsString {
    let there = |path: &OsString| Path::new(path).is_file();
    let bundles = SYSTEM_BUNDLES.iter().map(OsString::from);
    std::env::var_os("SSL_CERT_FILE").into_iter().chain(bundles).find(there).unwrap_or_else(|| "system".into())
}

fn host(host: &Host) -> OsString {
    match host {
        Host::Tcp(name) => name.into(),
        #[cfg(unix)]
        Host::Unix(directory) => directory.into(),
    }
}

/// libpq's lists: separated by commas.
fn joined(values: impl Iterator<Item = OsString>) -> OsString {
    let mut list = OsString::new();
    for value in values {
        if !list.is_empty() {
            list.push(",");
        }
        list.push(value);
    }
    list
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use secrecy::ExposeSecret as _;

    use super::*;

    fn environment(url: &str) -> BTreeMap<&'static str, String> {
        let url: DatabaseUrl = url.parse().unwrap();
        url.libpq_environment().into_iter().map(|(name, value)| (name, value.into_string().unwrap())).collect()
    }

    fn password(url: &str) -> Vec<u8> {
        url.parse::<DatabaseUrl>().unwrap().password().unwrap().expose_secret().to_vec()
    }

    #[test]
    fn one_host_with_everything() {
        let found = environment(
            "postgres://me:pw@db.example:6432/my%20app?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem&application_name=x\
             &connect_timeout=7&options=-c%20geqo%3Doff&channel_binding=require",
        );
        let expected = [
            ("PGAPPNAME", "x"),
            ("PGCHANNELBINDING", "require"),
            ("PGCONNECT_TIMEOUT", "7"),
            ("PGDATABASE", "my app"),
            ("PGGSSENCMODE", "disable"),
            ("PGHOST", "db.example"),
            ("PGOPTIONS", "-c geqo=off"),
            ("PGPORT", "6432"),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", "/etc/ca.pem"),
            ("PGUSER", "me"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name, value.to_owned())).into());
    }

    #[test]
    fn hosts_sockets_and_addresses() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("postgres://a:5433,b:5434/app", &[("PGHOST", "a,b"), ("PGPORT", "5433,5434"), ("PGSSLMODE", "prefer")]),
            ("postgres://a,b/app?load_balance_hosts=random", &[("PGHOST", "a,b"), ("PGLOADBALANCEHOSTS", "random")]),
            ("postgres://a,b/app?target_session_attrs=read-write", &[("PGTARGETSESSIONATTRS", "read-write")]),
            ("postgres://[::1]:6000/app", &[("PGHOST", "::1"), ("PGPORT", "6000")]),
            ("postgres://[2001:db8::7],b/app", &[("PGHOST", "2001:db8::7,b")]),
            ("postgres://me@%2Frun%2Fpg/app?sslmode=require", &[("PGHOST", "/run/pg"), ("PGSSLMODE", "disable")]),
            ("postgres:///app?host=/tmp/s&port=6000", &[("PGHOST", "/tmp/s"), ("PGPORT", "6000")]),
            ("postgres://db/app?hostaddr=10.0.0.7", &[("PGHOST", "db"), ("PGHOSTADDR", "10.0.0.7")]),
            ("postgres://db/app?connect_timeout=1", &[("PGCONNECT_TIMEOUT", "2"), ("PGPORT", "5432")]),
        ];
        for (url, expected) in cases {
            let found = environment(url);
            for (name, value) in *expected {
                assert_eq!(found.get(name).map(String::as_str), Some(*value), "{url}: {name} in {found:?}");
            }
        }
    }

    #[test]
    fn a_verified_server_is_verified_by_libpq_too() {
        for url in [
            "postgres://db/app?sslmode=verify-full",
            "postgres://db/app?sslmode=verify-ca",
            "postgres://db/app?sslrootcert=system",
        ] {
            let roots = environment(url).remove("PGSSLROOTCERT").unwrap();
            assert!(roots == "system" || Path::new(&roots).is_file(), "{url}: {roots}");
        }
        assert_eq!(environment("postgres://db/app?sslmode=require").get("PGSSLROOTCERT"), None);
    }

    #[test]
    fn the_password_is_decoded_and_stands_nowhere_else() {
        assert_eq!(password("postgres://me:p%40ss%3A%2Fw%C3%B6rd%25%5C@db/app"), "p@ss:/wörd%\\".as_bytes());
        assert_eq!(password("postgres://me:%FF%FE@db/app"), [0xff, 0xfe]);
        assert_eq!(password("postgres://me@db/app?password=s3cret"), b"s3cret");
        let url: DatabaseUrl = "postgres://me:s3cret@db/app".parse().unwrap();
        let shown = format!("{:?} {:?}", url.libpq_environment(), url.password());
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!("postgres://me@db/app".parse::<DatabaseUrl>().unwrap().password().is_none());
    }
}
