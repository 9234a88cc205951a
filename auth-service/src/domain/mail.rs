//! Mails with a token: which there are, and what they say.

use chrono::TimeDelta;

use super::opaque_token::OpaqueToken;

/// How long the token of a mail is good, from the moment the mail leaves.
pub const TOKEN_TTL: TimeDelta = TimeDelta::hours(1);
/// Mails of one kind to one account within an hour: who asks more often gets no more, or anybody could flood a mailbox.
pub const MOST_PER_HOUR: i64 = 5;
/// A mail that could not be sent for so long is given up: whoever asked for it has asked again, or forgotten.
pub const GIVE_UP_AFTER: TimeDelta = TimeDelta::hours(24);
/// And one that the server refuses: the addressee is gone, or a setting of ours is wrong and somebody corrects it.
pub const GIVE_UP_REFUSED_AFTER: TimeDelta = TimeDelta::hours(1);

/// What a mail is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailKind {
    /// To set a new password with.
    PasswordReset,
    /// To show that mail arrives.
    EmailVerification,
}

impl MailKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::PasswordReset, Self::EmailVerification];

    /// As stored in `mail_outbox.kind`, and in metrics and file names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PasswordReset => "password_reset",
            Self::EmailVerification => "email_verification",
        }
    }

    /// From what is stored; `None`: a newer program wrote it.
    pub fn from_stored(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A mail whose token was just made.
pub struct TokenMail {
    /// What it is for.
    pub kind: MailKind,
    /// To whom.
    pub email: String,
    /// Whose account.
    pub username: String,
    /// What it brings.
    pub token: OpaqueToken,
}

/// The words of a mail.
pub struct Content {
    /// One line.
    pub subject: &'static str,
    /// For every reader.
    pub text: String,
    /// For readers that show it.
    pub html: String,
}

impl TokenMail {
    /// What it says. `link` is a page of the installation with `{token}` in it, where people enter the token.
    pub fn content(&self, link: Option<&str>) -> Content {
        let (subject, why, otherwise) = match self.kind {
            MailKind::PasswordReset => (
                "Set a new password",
                "Somebody asked for a new password for your account. If it was you, set one with this token:",
                "If it was not you, do nothing: your password stays as it is.",
            ),
            MailKind::EmailVerification => (
                "Confirm your e-mail address",
                "Please confirm that mail to this address reaches you, with this token:",
                "If you have no such account, do nothing.",
            ),
        };
        let token = self.token.reveal();
        let link = link.map(|link| link.replace("{token}", token));
        let good = "It is good once, for one hour, and until a newer one is asked for.";
        let at = link.as_ref().map(|link| format!("or open\n\n    {link}\n\n")).unwrap_or_default();
        let text = format!("Hello {},\n\n{why}\n\n    {token}\n\n{at}{good}\n{otherwise}\n", self.username);
        let at = link.map(|link| escaped(&link)).map(|link| format!("<p>or open <a href=\"{link}\">{link}</a></p>\n"));
        let html = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{subject}</title></head><body>\n\
             <p>Hello {},</p>\n<p>{why}</p>\n<p><code>{token}</code></p>\n{}<p>{good}<br>\n{otherwise}</p>\n</body></html>\n",
            escaped(&self.username),
            at.unwrap_or_default(),
        );
        Content { subject, text, html }
    }
}

/// Text inside HTML, also inside a quoted attribute.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut html, c| {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
        html
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(kind: MailKind, username: &str) -> TokenMail {
        TokenMail {
            kind,
            email: "ann@example.com".to_owned(),
            username: username.to_owned(),
            token: OpaqueToken::presented("t0ken-_".to_owned()),
        }
    }

    #[test]
    fn both_forms_of_every_mail_bring_the_token_and_the_link() {
        for kind in MailKind::ALL {
            let content = mail(kind, "ann").content(Some("https://example.com/new?token={token}"));
            for form in [&content.text, &content.html] {
                assert!(form.contains("    t0ken-_\n") || form.contains("<code>t0ken-_</code>"), "{form}");
                assert!(form.contains("https://example.com/new?token=t0ken-_"), "{form}");
                assert!(form.lines().all(|line| line.len() < 998), "the longest line of a mail");
            }
            assert!(!mail(kind, "ann").content(None).text.contains("or open"));
            assert_eq!(MailKind::from_stored(kind.as_str()), Some(kind));
        }
    }

    #[test]
    fn a_name_is_no_markup() {
        let content = mail(MailKind::PasswordReset, "<b>\"x'&").content(None);
        assert!(content.html.contains("Hello &lt;b&gt;&quot;x&#39;&amp;,"), "{}", content.html);
    }
}
