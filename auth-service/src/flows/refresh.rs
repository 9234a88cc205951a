//! Trading a refresh token.

use crate::domain::refresh_token::RefreshToken;
use crate::store::refresh::{Refreshed, Rotation};

use super::{FlowError, Flows, IssuedTokens, Origin, delta, now};

impl Flows {
    /// Trades a refresh token for new tokens.
    ///
    /// # Errors
    /// [`FlowError::RefreshTokenRefused`] whatever was wrong with it.
    pub async fn refresh(&self, presented: &RefreshToken, origin: &Origin) -> Result<IssuedTokens, FlowError> {
        let now = now();
        let ring = self.ring(now)?;
        let next = RefreshToken::generate()?;
        let next_sealed = presented.seal_successor(&next)?;
        let rotation = Rotation {
            presented,
            next: &next,
            next_sealed: &next_sealed,
            origin,
            now,
            ttl: delta(self.settings.refresh_ttl),
            access_ends_at: now + delta(self.settings.access_ttl),
        };
        let (outcome, tokens) = match self.store.session_refresh(&rotation).await? {
            Refreshed::Rotated { subject, expires_at } => ("rotated", Some((subject, next, expires_at))),
            Refreshed::Repeated { subject, successor, expires_at } => {
                ("repeated", Some((subject, successor, expires_at)))
            }
            Refreshed::Refused => ("refused", None),
            Refreshed::SessionEnded { session_id, user_id } => {
                tracing::warn!(%session_id, %user_id, "a used refresh token came back: the session is ended");
                ("reused", None)
            }
        };
        metrics::counter!("refreshes_total", "outcome" => outcome).increment(1);
        let (subject, refresh, expires_at) = tokens.ok_or(FlowError::RefreshTokenRefused)?;
        Ok(self.issue(subject, refresh, expires_at, &ring, now)?)
    }
}
