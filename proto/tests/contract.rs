//! The names that clients rely on: every RPC with the fields of its request and answer.
//!
//! The table is written by hand and holds both ways: an RPC that is not in it fails, and so does a row without an RPC.
//! Renaming or removing what stands here breaks clients; adding an RPC means adding a row.

use std::{any::type_name, collections::BTreeMap};

use prost_reflect::{MessageDescriptor, MethodDescriptor};
use proto::{auth::v1 as auth, descriptor_pool, task::v1 as task, validate::Validate};

const TOKENS: &str = "access_token refresh_token token_type expires_in access_expires_at refresh_expires_at";
const USER: &str = "id email username role is_active email_verified last_login_at created_at updated_at";
const TASK: &str = "id user_id title description status due_date created_at updated_at etag";
const ROLE: &str = "id name display_name description permissions";
const PAGE: &str = "page_size page_token";

/// One RPC: its name, the Rust type of its request, fields of the request and of the answer.
struct Row {
    rpc: &'static str,
    request_type: &'static str,
    request: String,
    answer: &'static str,
}

/// A row; it does not compile for a request without validation.
fn rpc<Request: Validate>(rpc: &'static str, request: &str, answer: &'static str) -> Row {
    Row { rpc, request_type: type_name::<Request>(), request: request.to_owned(), answer }
}

/// A row of a list: its filters besides the page.
fn list<Request: Validate>(name: &'static str, filters: &str, answer: &'static str) -> Row {
    rpc::<Request>(name, &format!("{PAGE} {filters}"), answer)
}

fn auth_service() -> Vec<Row> {
    vec![
        rpc::<auth::SignUpRequest>("auth.v1.AuthService/SignUp", "email username password", "tokens user"),
        rpc::<auth::SignInRequest>("auth.v1.AuthService/SignIn", "login password", "tokens user"),
        rpc::<auth::RefreshTokenRequest>("auth.v1.AuthService/RefreshToken", "refresh_token", "tokens"),
        rpc::<auth::SignOutRequest>("auth.v1.AuthService/SignOut", "refresh_token", ""),
        rpc::<auth::SignOutAllRequest>("auth.v1.AuthService/SignOutAll", "", ""),
        rpc::<auth::GetMeRequest>("auth.v1.AuthService/GetMe", "", "user"),
        rpc::<auth::UpdateMeRequest>("auth.v1.AuthService/UpdateMe", "user update_mask", "user"),
        rpc::<auth::ChangePasswordRequest>("auth.v1.AuthService/ChangePassword", "current_password new_password", ""),
        rpc::<auth::RequestPasswordResetRequest>("auth.v1.AuthService/RequestPasswordReset", "email", ""),
        rpc::<auth::ResetPasswordRequest>("auth.v1.AuthService/ResetPassword", "token new_password", ""),
        rpc::<auth::RequestEmailVerificationRequest>("auth.v1.AuthService/RequestEmailVerification", "", ""),
        rpc::<auth::VerifyEmailRequest>("auth.v1.AuthService/VerifyEmail", "token", ""),
        rpc::<auth::DeleteMeRequest>("auth.v1.AuthService/DeleteMe", "password", ""),
        list::<auth::ListSessionsRequest>("auth.v1.AuthService/ListSessions", "", "sessions next_page_token"),
        rpc::<auth::RevokeSessionRequest>("auth.v1.AuthService/RevokeSession", "session_id", ""),
    ]
}

fn auth_administration() -> Vec<Row> {
    vec![
        rpc::<auth::GetUserRequest>("auth.v1.UserService/GetUser", "id", "user"),
        rpc::<auth::BatchGetUsersRequest>("auth.v1.UserService/BatchGetUsers", "ids", "users"),
        list::<auth::ListUsersRequest>(
            "auth.v1.UserService/ListUsers",
            "order_by role is_active email_verified email_contains username_contains created_after created_before",
            "users next_page_token",
        ),
        rpc::<auth::UpdateUserRequest>("auth.v1.UserService/UpdateUser", "user update_mask", "user"),
        rpc::<auth::SetUserActiveRequest>("auth.v1.UserService/SetUserActive", "id is_active", "user"),
        rpc::<auth::AssignRoleRequest>("auth.v1.UserService/AssignRole", "user_id role", "user"),
        rpc::<auth::DeleteUserRequest>("auth.v1.UserService/DeleteUser", "id", ""),
        rpc::<auth::ImportUsersRequest>(
            "auth.v1.UserService/ImportUsers",
            "options user",
            "index outcome user_id reason field description",
        ),
        rpc::<auth::GetUserStatsRequest>("auth.v1.UserService/GetUserStats", "", "stats"),
        rpc::<auth::CreateRoleRequest>(
            "auth.v1.RoleService/CreateRole",
            "name display_name description permissions",
            "role",
        ),
        rpc::<auth::GetRoleRequest>("auth.v1.RoleService/GetRole", "id", "role"),
        list::<auth::ListRolesRequest>("auth.v1.RoleService/ListRoles", "", "roles next_page_token"),
        rpc::<auth::UpdateRoleRequest>("auth.v1.RoleService/UpdateRole", "role update_mask", "role"),
        rpc::<auth::DeleteRoleRequest>("auth.v1.RoleService/DeleteRole", "id", ""),
        rpc::<auth::ListPermissionsRequest>("auth.v1.RoleService/ListPermissions", "", "permissions"),
        rpc::<auth::CreateServiceAccountRequest>(
            "auth.v1.ServiceAccountService/CreateServiceAccount",
            "name permissions",
            "service_account client_id client_secret",
        ),
        list::<auth::ListServiceAccountsRequest>(
            "auth.v1.ServiceAccountService/ListServiceAccounts",
            "",
            "service_accounts next_page_token",
        ),
        rpc::<auth::RotateSecretRequest>(
            "auth.v1.ServiceAccountService/RotateSecret",
            "id overlap",
            "service_account client_id client_secret previous_secret_expires_at",
        ),
        rpc::<auth::DeleteServiceAccountRequest>("auth.v1.ServiceAccountService/DeleteServiceAccount", "id", ""),
        list::<auth::ListAuditEventsRequest>(
            "auth.v1.AuditService/ListAuditEvents",
            "actor_id target_id target_type actions outcome source request_id occurred_after occurred_before",
            "events next_page_token",
        ),
    ]
}

fn tokens() -> Vec<Row> {
    vec![
        rpc::<auth::ListSigningKeysRequest>("auth.v1.TokenService/ListSigningKeys", "", "keys"),
        rpc::<auth::IntrospectTokenRequest>("auth.v1.TokenService/IntrospectToken", "token", "active principal"),
        rpc::<auth::WatchRevocationsRequest>(
            "auth.v1.TokenService/WatchRevocations",
            "after_revision",
            "revision sent_at",
        ),
        rpc::<auth::IssueServiceTokenRequest>(
            "auth.v1.TokenService/IssueServiceToken",
            "client_id client_secret",
            "access_token token_type expires_in access_expires_at permissions",
        ),
        rpc::<auth::RotateSigningKeyRequest>("auth.v1.TokenService/RotateSigningKey", "", "key"),
    ]
}

fn tasks() -> Vec<Row> {
    vec![
        rpc::<task::CreateTaskRequest>(
            "task.v1.TaskService/CreateTask",
            "title description status due_date request_id user_id",
            "task",
        ),
        rpc::<task::GetTaskRequest>("task.v1.TaskService/GetTask", "id", "task"),
        list::<task::ListTasksRequest>(
            "task.v1.TaskService/ListTasks",
            "order_by statuses title_contains description_contains due_after due_before created_after created_before user_id",
            "tasks next_page_token",
        ),
        rpc::<task::UpdateTaskRequest>("task.v1.TaskService/UpdateTask", "task update_mask", "task"),
        rpc::<task::DeleteTaskRequest>("task.v1.TaskService/DeleteTask", "id etag", ""),
        rpc::<task::BatchCreateTasksRequest>("task.v1.TaskService/BatchCreateTasks", "requests", "tasks"),
        rpc::<task::BatchGetTasksRequest>("task.v1.TaskService/BatchGetTasks", "ids", "tasks"),
        rpc::<task::BatchUpdateTasksRequest>("task.v1.TaskService/BatchUpdateTasks", "requests", "tasks"),
        rpc::<task::BatchDeleteTasksRequest>("task.v1.TaskService/BatchDeleteTasks", "ids", ""),
        rpc::<task::GetTaskStatsRequest>("task.v1.TaskService/GetTaskStats", "user_id", "stats"),
        rpc::<task::WatchTasksRequest>(
            "task.v1.TaskService/WatchTasks",
            "user_id snapshot resume_token",
            "resume_token sent_at upserted deleted",
        ),
        rpc::<task::PurgeUserTasksRequest>("task.v1.OwnershipService/PurgeUserTasks", "user_id", "task_count"),
        rpc::<task::ReassignTasksRequest>(
            "task.v1.OwnershipService/ReassignTasks",
            "from_user_id to_user_id task_ids",
            "task_count",
        ),
    ]
}

fn methods() -> BTreeMap<String, MethodDescriptor> {
    descriptor_pool()
        .services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .map(|method| (format!("{}/{}", method.parent_service().full_name(), method.name()), method))
        .collect()
}

/// The names that a message lacks.
fn lacking<'a>(message: &MessageDescriptor, fields: &'a str) -> Vec<&'a str> {
    fields.split_whitespace().filter(|field| message.get_field_by_name(field).is_none()).collect()
}

#[test]
fn every_rpc_has_the_names_of_the_table() {
    let mut methods = methods();
    for row in [auth_service(), auth_administration(), tokens(), tasks()].into_iter().flatten() {
        let method = methods.remove(row.rpc).unwrap_or_else(|| panic!("{}: no such RPC", row.rpc));
        let (service, name) = row.rpc.split_once('/').unwrap();
        let package = service.rsplit_once('.').unwrap().0;
        assert_eq!(method.input().full_name(), format!("{package}.{name}Request"));
        assert_eq!(method.output().full_name(), format!("{package}.{name}Response"));
        assert_eq!(row.request_type, format!("proto::{}::{name}Request", package.replace('.', "::")), "{}", row.rpc);
        assert_eq!(
            lacking(&method.input(), &row.request),
            Vec::<&str>::new(),
            "{} lacks these",
            method.input().full_name()
        );
        assert_eq!(
            lacking(&method.output(), row.answer),
            Vec::<&str>::new(),
            "{} lacks these",
            method.output().full_name()
        );
        let is_import = name.starts_with("Import");
        assert_eq!(method.is_server_streaming(), name.starts_with("Watch") || is_import, "{}", row.rpc);
        assert_eq!(method.is_client_streaming(), is_import, "{}: only imports take a stream", row.rpc);
    }
    assert!(methods.is_empty(), "add these RPCs to the table of this test: {:?}", methods.keys());
}

#[test]
fn resources_have_the_names_of_the_contract() {
    for (message, fields) in
        [("auth.v1.Tokens", TOKENS), ("auth.v1.User", USER), ("auth.v1.Role", ROLE), ("task.v1.Task", TASK)]
    {
        let message = descriptor_pool().get_message_by_name(message).unwrap();
        assert_eq!(lacking(&message, fields), Vec::<&str>::new(), "{} lacks these", message.full_name());
    }
    let statuses = descriptor_pool().get_enum_by_name("task.v1.TaskStatus").unwrap();
    let names: Vec<_> = statuses.values().map(|value| value.name().to_owned()).collect();
    assert_eq!(
        names,
        [
            "TASK_STATUS_UNSPECIFIED",
            "TASK_STATUS_TODO",
            "TASK_STATUS_IN_PROGRESS",
            "TASK_STATUS_COMPLETED",
            "TASK_STATUS_CANCELLED"
        ]
    );
}

#[test]
fn each_service_reflects_its_own_package_only() {
    for (set, package) in [(auth::FILE_DESCRIPTOR_SET, "auth.v1"), (task::FILE_DESCRIPTOR_SET, "task.v1")] {
        let pool = prost_reflect::DescriptorPool::decode(set).unwrap();
        assert!(pool.services().len() > 0);
        assert!(pool.services().all(|service| service.package_name() == package), "{package}");
        assert!(pool.get_file_by_name("buf/validate/validate.proto").is_some(), "{package}: imports belong to the set");
    }
}
