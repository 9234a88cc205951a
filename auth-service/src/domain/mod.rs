//! Rules and values of the domain: no gRPC, no SQL.

pub mod access_token;
pub mod account;
pub mod audit;
pub mod login_key;
pub mod mail;
pub mod opaque_token;
pub mod page;
pub mod password;
pub mod refresh_token;
pub mod role;
pub mod sealing;
pub mod service_account;
pub mod signing_key;
pub mod throttle;
pub mod user;
pub mod user_list;
