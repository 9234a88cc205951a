//! What `config print` shows: every setting with its value and where it came from, secrets masked.

use std::fmt::Write as _;

/// Shown instead of a secret.
pub(super) const MASK: &str = "********";

/// Where a setting's value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingSource {
    /// The documented default, or unset when there is none.
    Default,
    /// The environment variable.
    Environment,
    /// The command-line flag.
    CommandLine,
}

/// One setting as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Setting {
    /// Name of the environment variable.
    pub name: String,
    /// The value, masked when it is a secret; `None` when unset.
    pub value: Option<String>,
    /// Whether the value is (or contains) a secret and stands here masked.
    pub secret: bool,
    /// Where the value came from.
    pub source: SettingSource,
}

impl Setting {
    /// A setting as shown: a secret is masked, except that a URL keeps everything but its password.
    pub fn new(name: impl Into<String>, value: Option<&str>, secret: bool, source: SettingSource) -> Self {
        let value = value.map(|value| if secret { mask(value) } else { value.to_owned() });
        Self { name: name.into(), value, secret, source }
    }
}

/// `NAME=value` lines, one per setting; an unset one stands as a comment.
pub fn settings_text(settings: &[Setting]) -> String {
    settings.iter().fold(String::new(), |mut text, setting| {
        let _ = match &setting.value {
            Some(value) => writeln!(text, "{}={value}", setting.name),
            None => writeln!(text, "# {} is unset", setting.name),
        };
        text
    })
}

/// A JSON array of the settings: `name`, `value`, `secret`, `source`.
pub fn settings_json(settings: &[Setting]) -> serde_json::Value {
    serde_json::json!(settings)
}

/// Masks a secret; of a URL with a host only the password (in the authority and in the query) is one.
fn mask(value: &str) -> String {
    match value.split_once("://") {
        Some((scheme, rest)) if scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+') => {
            format!("{scheme}://{}", crate::postgres::mask_authority_and_query(rest, MASK))
        }
        _ => MASK.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_all_but_its_password() {
        let shown = |value| Setting::new("X", Some(value), true, SettingSource::Default).value.unwrap();
        assert_eq!(
            shown("postgres://me:s3cret@db:5432/app?sslmode=require"),
            "postgres://me:********@db:5432/app?sslmode=require"
        );
        assert_eq!(shown("postgres://me@db/app?password=s3cret&x=1"), "postgres://me@db/app?password=********&x=1");
        assert_eq!(shown("smtp://u:p@w@mail:25"), "smtp://u:********@mail:25");
        assert_eq!(shown("c2VjcmV0"), "********");
    }

    #[test]
    fn text_shows_unset_settings_as_comments() {
        let settings = [
            Setting::new("A", Some("1"), false, SettingSource::Environment),
            Setting::new("B", None, true, SettingSource::Default),
        ];
        assert_eq!(settings_text(&settings), "A=1\n# B is unset\n");
        assert_eq!(settings_json(&settings)[0]["source"], "environment");
    }
}
