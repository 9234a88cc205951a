//! Mails: which there are, and what they say.

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
    /// To tell the address that an account had before of the change.
    EmailChanged,
}

impl MailKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::PasswordReset, Self::EmailVerification, Self::EmailChanged];

    /// As stored in `mail_outbox.kind`, and in metrics and file names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PasswordReset => "password_reset",
            Self::EmailVerification => "email_verification",
            Self::EmailChanged => "email_changed",
        }
    }

    /// From what is stored; `None`: a newer program wrote it. Behind a colon may stand which of several mails of the kind it is.
    pub fn from_stored(text: &str) -> Option<Self> {
        let kind = text.split(':').next().unwrap_or_default();
        Self::ALL.into_iter().find(|known| known.as_str() == kind)
    }
}

/// A mail that leaves now, with a token that was just made.
pub struct Mail {
    /// What it is for.
    pub kind: MailKind,
    /// To whom.
    pub email: String,
    /// Whose account.
    pub username: String,
    /// What it brings; a notice brings nothing.
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

impl Mail {
    /// What it says. `link` is a page of the installation with `{token}` in it, where people enter the token.
    pub fn content(&self, link: Option<&str>) -> Content {
        let (subject, why, otherwise) = match self.kind {
            MailKind::EmailChanged => return self.notice(),
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
        let (username, at) = (escaped(&self.username), at.unwrap_or_default());
        let body = format!(
            "<p>Hello {username},</p>\n<p>{why}</p>\n<p><code>{token}</code></p>\n{at}<p>{good}<br>\n{otherwise}</p>\n"
        );
        let html = page(subject, &body);
        Content { subject, text, html }
    }

    /// Says nothing of the new address: whoever reads here may have lost the right to know it.
    fn notice(&self) -> Content {
        let subject = "The e-mail address of your account was changed";
        let why =
            "The e-mail address of your account was changed. Mails of the account go to another address from now on.";
        let otherwise = "If it was not you, tell an administrator at once: somebody else is signed in to your account.";
        let text = format!("Hello {},\n\n{why}\n\n{otherwise}\n", self.username);
        let html =
            page(subject, &format!("<p>Hello {},</p>\n<p>{why}</p>\n<p>{otherwise}</p>\n", escaped(&self.username)));
        Content { subject, text, html }
    }
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head><body>\n\
         {body}</body></html>\n"
    )
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

    fn mail(kind: MailKind, username: &str) -> Mail {
        Mail {
            kind,
            email: "ann@example.com".to_owned(),
            username: username.to_owned(),
            token: OpaqueToken::presented("t0ken-_".to_owned()),
        }
    }

    #[test]
    fn both_forms_of_every_mail_bring_the_token_and_the_link() {
        for kind in MailKind::ALL.into_iter().filter(|kind| *kind != MailKind::EmailChanged) {
            let content = mail(kind, "ann").content(Some("https://example.com/new?token={token}"));
            for form in [&content.text, &content.html] {
                assert!(form.contains("    t0ken-_\n") || form.contains("<code>t0ken-_</code>"), "{form}");
                assert!(form.contains("https://example.com/new?token=t0ken-_"), "{form}");
                assert!(form.lines().all(|line| line.len() < 998), "the longest line of a mail");
            }
            assert!(!mail(kind, "ann").content(None).text.contains("or open"));
        }
    }

    #[test]
    fn what_is_stored_reads_back() {
        for kind in MailKind::ALL {
            assert_eq!(MailKind::from_stored(kind.as_str()), Some(kind));
        }
        assert_eq!(MailKind::from_stored("email_changed:0123456789abcdef"), Some(MailKind::EmailChanged));
        assert_eq!(MailKind::from_stored("postcard"), None);
    }

    #[test]
    fn a_notice_brings_neither_token_nor_address() {
        let content = mail(MailKind::EmailChanged, "ann").content(Some("https://example.com/{token}"));
        for form in [&content.text, &content.html] {
            assert!(form.contains("was changed") && form.contains("Hello ann,"), "{form}");
            assert!(!form.contains("t0ken-_") && !form.contains('@'), "{form}");
        }
    }

    #[test]
    fn a_name_is_no_markup() {
        let content = mail(MailKind::PasswordReset, "<b>\"x'&").content(None);
        assert!(content.html.contains("Hello &lt;b&gt;&quot;x&#39;&amp;,"), "{}", content.html);
    }
}
