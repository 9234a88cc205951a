//! What the pair offers when it is up: `env.json` for programs, a screen to paste from for people.

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::UpError;
use super::directory::Directory;

const HEAD: Style = AnsiColor::Cyan.on_default().bold();

/// `DIR/env.json`, with the names of the contract.
#[derive(Debug, Serialize)]
pub(super) struct Environment {
    pub(super) auth_addr: String,
    pub(super) task_addr: String,
    pub(super) auth_metrics_addr: String,
    pub(super) task_metrics_addr: String,
    pub(super) auth_database_url: String,
    pub(super) task_database_url: String,
    pub(super) admin_email: String,
    pub(super) admin_password: String,
    pub(super) mail_dir: String,
}

impl Environment {
    /// Writes `env.json`, prints the screen and `ready`.
    pub(super) fn announce(&self, directory: &Directory) -> Result<(), UpError> {
        directory.write("env.json", self)?;
        anstream::println!("{}", self.screen(&directory.env_file().display().to_string()));
        anstream::println!("ready");
        Ok(())
    }

    fn screen(&self, env_file: &str) -> String {
        let Self {
            auth_addr,
            task_addr,
            auth_metrics_addr,
            task_metrics_addr,
            admin_email,
            admin_password,
            mail_dir,
            ..
        } = self;
        format!(
            r#"
{HEAD}The pair is up{HEAD:#}
  auth-service   {auth_addr}   metrics http://{auth_metrics_addr}/metrics
  task-service   {task_addr}   metrics http://{task_metrics_addr}/metrics
  administrator  {admin_email}   password {admin_password}
  mails          {mail_dir}
  all of this    {env_file}

{HEAD}Try it{HEAD:#} (grpcurl: https://github.com/fullstorydev/grpcurl)
  # what there is
  grpcurl -plaintext {auth_addr} list
  # sign in, and keep the access token
  grpcurl -plaintext -d '{{"login":"{admin_email}","password":"{admin_password}"}}' {auth_addr} auth.v1.AuthService/SignIn
  TOKEN=$(grpcurl -plaintext -d '{{"login":"{admin_email}","password":"{admin_password}"}}' {auth_addr} auth.v1.AuthService/SignIn | sed -n 's/.*"accessToken": "\([^"]*\)".*/\1/p')
  # make a task, then list your tasks
  grpcurl -plaintext -H "authorization: Bearer $TOKEN" -d '{{"title":"Buy milk"}}' {task_addr} task.v1.TaskService/CreateTask
  grpcurl -plaintext -H "authorization: Bearer $TOKEN" {task_addr} task.v1.TaskService/ListTasks

Ctrl-C stops everything; the data stay for the next `cargo up`, `cargo up --fresh` starts over."#
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_can_be_pasted() {
        let text = |name: &str| name.to_owned();
        let environment = Environment {
            auth_addr: text("127.0.0.1:1"),
            task_addr: text("127.0.0.1:2"),
            auth_metrics_addr: text("127.0.0.1:3"),
            task_metrics_addr: text("127.0.0.1:4"),
            auth_database_url: text("postgres://a"),
            task_database_url: text("postgres://b"),
            admin_email: text("admin@local.test"),
            admin_password: text("secret"),
            mail_dir: text("/x y/mail"),
        };
        let screen = environment.screen("/x y/env.json");
        assert!(
            screen.contains(
                r#"-d '{"login":"admin@local.test","password":"secret"}' 127.0.0.1:1 auth.v1.AuthService/SignIn"#
            ),
            "{screen}"
        );
        assert!(!screen.contains("postgres://"), "no database password on the screen");
    }
}
