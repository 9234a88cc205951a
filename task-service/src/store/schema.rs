//! The tables as Diesel sees them; their definition is in `migrations/task`.

diesel::table! {
    tasks (user_id, id) {
        id -> Uuid,
        title -> Text,
        description -> Nullable<Text>,
        status -> Varchar,
        due_date -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        user_id -> Uuid,
        version -> Int8,
        deleted_at -> Nullable<Timestamptz>,
        limits_waived -> Bool,
        completed_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    task_requests (user_id, request_id) {
        user_id -> Uuid,
        request_id -> Uuid,
        task_id -> Uuid,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    task_changes (user_id, xact, task_id, version) {
        user_id -> Uuid,
        xact -> Int8,
        task_id -> Uuid,
        version -> Int8,
        kind -> Varchar,
        changed_at -> Timestamptz,
        title -> Text,
        description -> Nullable<Text>,
        status -> Varchar,
        due_date -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
    }
}

diesel::allow_tables_to_appear_in_same_query!(tasks, task_requests, task_changes);
