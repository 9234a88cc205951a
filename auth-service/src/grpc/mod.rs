//! The proto services, one file each. A handler is parse → act → map back.

mod audit_service;
mod auth_service;
mod convert;
mod page;
mod parse;
mod role_service;
mod service_account_service;
mod token_service;
mod user_import;
mod user_service;

pub use audit_service::AuditService;
pub use auth_service::AuthService;
pub use role_service::RoleService;
pub use service_account_service::ServiceAccountService;
pub use token_service::TokenService;
pub use user_service::UserService;
