//! Embeds the migrations.

fn main() -> std::io::Result<()> {
    migration_embed::generate("../migrations/auth")
}
