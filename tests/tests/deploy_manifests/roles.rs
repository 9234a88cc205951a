//! The SQL of docs/DEPLOY.md, run on a real server: the migrator can migrate, the runtime role can serve and not more.

use local_pair::postgres::{SUPERUSER, connect, database_drop};
use tests::{Postgres, Service, run_migrate};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// The SQL blocks of the guide, in order, each as its statements.
fn blocks() -> Vec<Vec<String>> {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/DEPLOY.md")).unwrap();
    let blocks = guide.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let statements = |block: &str| {
        let code: Vec<_> = block.lines().filter(|line| !line.starts_with("--")).collect();
        code.join("\n")
            .split(';')
            .map(|statement| statement.trim().to_owned())
            .filter(|text| !text.is_empty())
            .collect()
    };
    blocks.map(statements).collect()
}

/// `auth` or `task` of the guide, under names of this test's own: roles belong to the whole server.
struct Names {
    prefix: String,
}

impl Names {
    fn statement(&self, text: &str) -> String {
        let (migrator, runtime) = (format!("{}_migrator", self.prefix), format!("{}_runtime", self.prefix));
        text.replace("auth_migrator", &migrator)
            .replace("auth_runtime", &runtime)
            .replace("DATABASE auth ", &format!("DATABASE {} ", self.prefix))
    }

    async fn run(&self, client: &Client, block: &[String]) {
        for text in block.iter().map(|text| self.statement(text)) {
            client.batch_execute(&text).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
        }
    }
}

async fn refused(client: &Client, sql: &str) -> Option<SqlState> {
    client.batch_execute(sql).await.err().and_then(|error| error.code().cloned())
}

#[tokio::test]
async fn the_roles_of_the_guide_suffice_and_hold() {
    let address = Postgres::shared().await.address();
    let blocks = blocks();
    let [server, database] = blocks.as_slice() else { panic!("docs/DEPLOY.md: expected two SQL blocks: {blocks:#?}") };
    for service in [Service::Auth, Service::Task] {
        let names = Names { prefix: format!("guide_{}", uuid::Uuid::new_v4().simple()) };
        let name = &names.prefix;
        let administrator = connect(&address.superuser_url(SUPERUSER)).await.unwrap();
        names.run(&administrator, server).await;
        for role in ["migrator", "runtime"] {
            let sql = format!("ALTER ROLE {name}_{role} PASSWORD 'secret'");
            administrator.batch_execute(&sql).await.unwrap();
        }
        names.run(&connect(&address.superuser_url(name)).await.unwrap(), database).await;

        let url = |role: &str| address.url(&format!("{name}_{role}"), "secret", name);
        let up = run_migrate(service, &url("migrator"), &["up", "--output", "json"]).await;
        assert_eq!(up.code, 0, "{} as the migrator of the guide: {up:#?}", service.name());
        let verify = run_migrate(service, &url("runtime"), &["verify", "--output", "json"]).await;
        assert_eq!(verify.code, 0, "{} as the runtime role of the guide: {verify:#?}", service.name());
        let runtime = connect(&url("runtime")).await.unwrap();
        assert_eq!(
            refused(&runtime, "CREATE TABLE public.mine (id int)").await,
            Some(SqlState::INSUFFICIENT_PRIVILEGE)
        );
        assert_eq!(
            refused(&runtime, "DROP TABLE public.__diesel_schema_migrations").await,
            Some(SqlState::INSUFFICIENT_PRIVILEGE)
        );
        assert_eq!(
            refused(&runtime, "CREATE TEMPORARY TABLE mine (id int)").await,
            Some(SqlState::INSUFFICIENT_PRIVILEGE)
        );
        drop(runtime);

        let stranger = format!("{name}_stranger");
        administrator.batch_execute(&format!("CREATE ROLE {stranger} LOGIN PASSWORD 'secret'")).await.unwrap();
        assert!(connect(&address.url(&stranger, "secret", name)).await.is_err(), "anybody may enter the database");
        database_drop(address, name).await.unwrap();
        for role in ["migrator", "runtime", "stranger"] {
            administrator.batch_execute(&format!("DROP ROLE {name}_{role}")).await.unwrap();
        }
    }
}
