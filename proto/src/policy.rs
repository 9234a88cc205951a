//! Who may call which RPC, read from the option `access.v1.access` of each RPC.
//!
//! A server asks [`missing`] at start and does not serve when the answer is not empty, and asks [`lookup`] for each call.
//! What has no policy is denied.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};

use crate::{access::v1 as access, descriptor_pool};

/// The access policy of one RPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody, without a token.
    Public,
    /// Whoever has a valid access token.
    Authenticated,
    /// Whoever has a valid access token with this permission, as in "users.read".
    Permission(String),
}

static POLICIES: LazyLock<BTreeMap<String, Access>> = LazyLock::new(|| {
    methods(descriptor_pool(), "").filter_map(|method| Some((path(&method), policy(&method)?))).collect()
});

static READS: LazyLock<BTreeSet<String>> =
    LazyLock::new(|| methods(descriptor_pool(), "").filter(reads).map(|method| path(&method)).collect());

static CATALOGUE: LazyLock<BTreeMap<String, String>> = LazyLock::new(catalogue);

static PERMISSIONS: LazyLock<BTreeSet<String>> = LazyLock::new(|| CATALOGUE.keys().cloned().collect());

/// The policy of an RPC by its path in the request, as in "/auth.v1.AuthService/SignUp".
/// None: not an RPC of ours, or one without a policy; either way nobody may call it.
pub fn lookup(grpc_path: &str) -> Option<&'static Access> {
    POLICIES.get(grpc_path)
}

/// Whether an RPC only reads, as its `idempotency_level` says (NO_SIDE_EFFECTS); by its path. What is unknown may change things.
pub fn is_read(grpc_path: &str) -> bool {
    READS.contains(grpc_path)
}

/// All policies by path, as in "/auth.v1.AuthService/SignUp".
pub fn all() -> &'static BTreeMap<String, Access> {
    &POLICIES
}

/// The names of all permissions there are.
pub fn permissions() -> &'static BTreeSet<String> {
    &PERMISSIONS
}

/// What a permission allows, in one sentence; by its name.
pub fn describe(permission: &str) -> Option<&'static str> {
    CATALOGUE.get(permission).map(String::as_str)
}

/// The paths of the RPCs of a package, as in "auth.v1", that have no policy, or one that names a permission which the
/// catalogue does not have. A server does not start unless this is empty.
pub fn missing(package: &str) -> Vec<String> {
    missing_in(descriptor_pool(), package)
}

fn missing_in(pool: &DescriptorPool, package: &str) -> Vec<String> {
    methods(pool, package)
        .filter(|method| match policy(method) {
            Some(Access::Public | Access::Authenticated) => false,
            Some(Access::Permission(name)) => !permissions().contains(&name),
            None => true,
        })
        .map(|method| path(&method))
        .collect()
}

/// The RPCs of a package; of all packages for "".
fn methods(pool: &DescriptorPool, package: &str) -> impl Iterator<Item = MethodDescriptor> {
    pool.services()
        .filter(move |service| package.is_empty() || service.package_name() == package)
        .flat_map(|service| service.methods().collect::<Vec<_>>())
}

fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

fn reads(method: &MethodDescriptor) -> bool {
    let options = method.options();
    let level = options.get_field_by_name("idempotency_level").and_then(|level| level.as_enum_number());
    level == Some(prost_types::method_options::IdempotencyLevel::NoSideEffects.into())
}

fn policy(method: &MethodDescriptor) -> Option<Access> {
    let option: access::Access = option(&method.options(), "access.v1.access")?;
    Some(match option.policy? {
        access::access::Policy::Public(_) => Access::Public,
        access::access::Policy::Authenticated(_) => Access::Authenticated,
        access::access::Policy::Permission(name) => Access::Permission(name),
    })
}

fn catalogue() -> BTreeMap<String, String> {
    let values = descriptor_pool().get_enum_by_name("access.v1.Permission");
    values
        .iter()
        .flat_map(|values| values.values())
        .filter_map(|value| option::<access::PermissionInfo>(&value.options(), "access.v1.permission"))
        .map(|info| (info.name, info.description))
        .collect()
}

/// A custom option as its generated type; none when it is not set.
fn option<M: prost::Message + Default>(options: &DynamicMessage, name: &str) -> Option<M> {
    let extension = descriptor_pool().get_extension_by_name(name)?;
    if !options.has_extension(&extension) {
        return None;
    }
    M::decode(options.get_extension(&extension).as_message()?.encode_to_vec().as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rpc_has_a_policy_from_the_catalogue() {
        for package in ["auth.v1", "task.v1"] {
            assert_eq!(missing(package), Vec::<String>::new(), "give each of these RPCs `option (access.v1.access)`");
        }
        assert_eq!(all().len(), methods(descriptor_pool(), "").count());
    }

    #[test]
    fn what_only_reads_says_so() {
        for path in all().keys() {
            let name = path.rsplit('/').next().unwrap();
            let looks_like_a_read =
                ["Get", "List", "BatchGet", "Watch", "Introspect"].iter().any(|verb| name.starts_with(verb));
            assert_eq!(
                is_read(path),
                looks_like_a_read,
                "{path}: `option idempotency_level = NO_SIDE_EFFECTS` says it only reads"
            );
        }
    }

    #[test]
    fn rpcs_without_the_option_are_named() {
        // prost-types knows no custom options: decoding and encoding loses them all.
        let bare = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
        let pool = DescriptorPool::decode(bare.encode_to_vec().as_slice()).unwrap();
        let missing = missing_in(&pool, "task.v1");
        assert_eq!(missing.len(), methods(&pool, "task.v1").count());
        assert!(missing.contains(&"/task.v1.TaskService/CreateTask".to_owned()), "{missing:?}");
    }

    #[test]
    fn the_catalogue_holds_what_the_contract_names() {
        for name in [
            "users.read",
            "users.write",
            "roles.read",
            "roles.write",
            "tasks.read",
            "tasks.write",
            "audit.read",
            "service_accounts.write",
            "tokens.introspect",
        ] {
            assert!(permissions().contains(name), "{name} is missing in access/v1/access.proto");
        }
        for name in permissions() {
            assert!(describe(name).is_some_and(|text| text.ends_with('.')), "{name}: describe it in one sentence");
            assert!(name.len() <= 64 && name.contains('.'), "{name}: expected <resource>.<verb>");
        }
        let values = descriptor_pool().get_enum_by_name("access.v1.Permission").unwrap();
        assert_eq!(permissions().len(), values.values().len() - 1, "each value but the first has a name of its own");
    }

    #[test]
    fn who_may_call_without_a_token_is_a_short_list() {
        let public: Vec<_> =
            all().iter().filter(|(_, access)| **access == Access::Public).map(|(path, _)| path).collect();
        assert_eq!(
            public,
            [
                "/auth.v1.AuthService/RefreshToken",
                "/auth.v1.AuthService/RequestPasswordReset",
                "/auth.v1.AuthService/ResetPassword",
                "/auth.v1.AuthService/SignIn",
                "/auth.v1.AuthService/SignOut",
                "/auth.v1.AuthService/SignUp",
                "/auth.v1.AuthService/VerifyEmail",
                "/auth.v1.TokenService/IssueServiceToken",
                "/auth.v1.TokenService/ListSigningKeys",
            ]
        );
    }

    #[test]
    fn administration_needs_its_permission() {
        for (path, permission) in [
            ("/auth.v1.UserService/ListUsers", "users.read"),
            ("/auth.v1.UserService/AssignRole", "users.write"),
            ("/auth.v1.TokenService/WatchRevocations", "tokens.introspect"),
            ("/auth.v1.TokenService/RotateSigningKey", "keys.write"),
            ("/task.v1.OwnershipService/PurgeUserTasks", "tasks.write"),
        ] {
            assert_eq!(lookup(path), Some(&Access::Permission(permission.to_owned())), "{path}");
        }
        assert_eq!(lookup("/task.v1.TaskService/GetTask"), Some(&Access::Authenticated));
        assert_eq!(lookup("/"), None);
        assert_eq!(lookup("/auth.v1.AuthService/signup"), None);
    }
}
