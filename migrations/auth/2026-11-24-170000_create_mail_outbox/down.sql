-- Loses mails that wait and tokens that are out.
DROP TABLE IF EXISTS email_verification_tokens;
DROP TABLE IF EXISTS mail_outbox;
