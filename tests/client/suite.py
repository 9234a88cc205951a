"""The pair as another team's Python program sees it: grpcio, reflection and the public contract, nothing of ours.

Usage: suite.py ENV_JSON, the env.json that `cargo up` writes. Prints a line for each test; exits 1 when one fails.
"""

import json
import sys
import threading
import time
import traceback
import uuid
from datetime import datetime, timedelta, timezone

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PASSWORD = "correct zebra battery 7"


class Api:
    """Calls RPCs by name, with messages made from what the server says they are."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def method(self, service, name):
        found = self.pool.FindServiceByName(service).methods_by_name[name]
        request = message_factory.GetMessageClass(found.input_type)
        answer = message_factory.GetMessageClass(found.output_type)
        kind = "unary_stream" if found.server_streaming else "unary_unary"
        call = getattr(self.channel, kind)(
            f"/{service}/{name}", request_serializer=request.SerializeToString, response_deserializer=answer.FromString
        )
        return request, call

    def call(self, service, name, token=None, timeout=20, **fields):
        request, call = self.method(service, name)
        metadata = [("authorization", f"Bearer {token}")] if token else []
        return call(request(**fields), metadata=metadata, timeout=timeout)


class World:
    def __init__(self, environment):
        self.auth = Api(environment["auth_addr"])
        self.tasks_api = Api(environment["task_addr"])
        self.environment = environment

    def sign_up(self):
        name = f"py-{uuid.uuid4().hex[:12]}"
        answer = self.auth.call(
            "auth.v1.AuthService", "SignUp", email=f"{name}@example.com", username=name, password=PASSWORD
        )
        return answer.user, answer.tokens

    def admin(self):
        answer = self.auth.call(
            "auth.v1.AuthService",
            "SignIn",
            login=self.environment["admin_email"],
            password=self.environment["admin_password"],
        )
        return answer.user, answer.tokens

    def task(self, name, token, **fields):
        return self.tasks_api.call("task.v1.TaskService", name, token, **fields)

    def owner(self, name, token, **fields):
        return self.tasks_api.call("task.v1.OwnershipService", name, token, **fields)


class Refusal:
    def __init__(self, error):
        self.code = error.code()
        self.reason = self.domain = None
        self.metadata, self.fields, self.retry = {}, [], None
        raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
        for detail in status_pb2.Status.FromString(raw).details if raw else ():
            for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
                if detail.Is(kind.DESCRIPTOR):
                    message = kind()
                    detail.Unpack(message)
                    if kind is error_details_pb2.ErrorInfo:
                        self.reason, self.domain, self.metadata = message.reason, message.domain, dict(message.metadata)
                    elif kind is error_details_pb2.BadRequest:
                        self.fields = [violation.field for violation in message.field_violations]
                    else:
                        self.retry = message.retry_delay


def refused(code, reason, call, *arguments, **fields):
    try:
        answer = call(*arguments, **fields)
    except grpc.RpcError as error:
        refusal = Refusal(error)
        assert (refusal.code, refusal.reason) == (code, reason), (refusal.code, refusal.reason, error)
        return refusal
    raise AssertionError(f"expected {reason}, got {answer}")


INVALID, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
DENIED, STRANGER = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED


def test_reflection_describes_every_service(world):
    for api, expected in (
        (world.auth, {"AuthService", "UserService", "RoleService", "TokenService", "ServiceAccountService", "AuditService"}),
        (world.tasks_api, {"TaskService", "OwnershipService"}),
    ):
        package = "auth.v1" if api is world.auth else "task.v1"
        names = {name for name in api.database.get_services() if name.startswith(package)}
        assert names == {f"{package}.{name}" for name in expected}, names
        for name in names:
            assert api.pool.FindServiceByName(name).methods, name
        file = api.pool.FindServiceByName(sorted(names)[0]).file
        assert descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb).package == package


def test_a_task_from_creation_to_deletion(world):
    user, tokens = world.sign_up()
    token = tokens.access_token
    due = {"seconds": 4_102_444_800, "nanos": 123_456_789}
    made = world.task("CreateTask", token, title="  Report 🦀 ", description="a\nb", due_date=due).task
    assert (made.title, made.description, made.user_id, made.status) == ("Report 🦀", "a\nb", user.id, 1)
    assert made.due_date.nanos == 123_456_000, "PostgreSQL keeps microseconds"
    assert world.task("GetTask", token, id=made.id).task == made
    changed = world.task("UpdateTask", token, task={"id": made.id, "status": 3}, update_mask={"paths": ["status"]}).task
    assert (changed.status, changed.title) == (3, made.title) and changed.etag != made.etag
    cleared = world.task("UpdateTask", token, task={"id": made.id}, update_mask={"paths": ["due_date"]}).task
    assert not cleared.HasField("due_date")
    refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH", world.task, "DeleteTask", token, id=made.id, etag=made.etag)
    world.task("DeleteTask", token, id=made.id, etag=cleared.etag)
    refused(MISSING, "TASK_NOT_FOUND", world.task, "GetTask", token, id=made.id)


def test_what_is_wrong_is_named(world):
    _, tokens = world.sign_up()
    token = tokens.access_token
    for fields, named in (
        ({"title": ""}, ["title"]),
        ({"title": "x" * 201}, ["title"]),
        ({"title": "t", "description": "x" * 10_001}, ["description"]),
        ({"title": "t", "status": 9}, ["status"]),
        ({"title": "t", "request_id": "again"}, ["request_id"]),
        ({"title": "t", "user_id": "me"}, ["user_id"]),
        ({"title": "", "request_id": "again"}, ["request_id", "title"]),
    ):
        refusal = refused(INVALID, "VALIDATION_FAILED", world.task, "CreateTask", token, **fields)
        assert (refusal.domain, sorted(refusal.fields)) == ("task.v1", named), refusal.fields
    refused(INVALID, "VALIDATION_FAILED", world.task, "ListTasks", token, page_size=-1)
    refused(INVALID, "VALIDATION_FAILED", world.task, "ListTasks", token, order_by="color")
    refused(INVALID, "PAGE_TOKEN_INVALID", world.task, "ListTasks", token, page_token="x")
    refused(INVALID, "VALIDATION_FAILED", world.task, "UpdateTask", token, task={"id": str(uuid.uuid4())})
    refused(STRANGER, "TOKEN_MISSING", world.task, "ListTasks", None)
    refused(STRANGER, "TOKEN_INVALID", world.task, "ListTasks", "x.y.z")


def test_request_ids_make_one_task_in_a_race(world):
    _, tokens = world.sign_up()
    request_id, ids = str(uuid.uuid4()), []
    create = lambda: ids.append(world.task("CreateTask", tokens.access_token, title="once", request_id=request_id).task.id)
    threads = [threading.Thread(target=create) for _ in range(12)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(ids) == 12 and len(set(ids)) == 1, ids


def test_pages_hold_every_task_once_in_every_order(world):
    _, tokens = world.sign_up()
    token = tokens.access_token
    base = datetime(2030, 1, 1, tzinfo=timezone.utc)
    requests = []
    for n in range(57):
        request = {"title": f"task {n * 37 % 57:02}", "status": n % 4 + 1}
        if n % 3:
            request["due_date"] = base + timedelta(hours=n * 7 % 11)
        requests.append(request)
    made = {task.id: task for task in world.task("BatchCreateTasks", token, requests=requests).tasks}
    when = lambda time: time.ToDatetime() if time.ByteSize() else None
    keys = {
        "created_at": lambda task: when(task.created_at),
        "updated_at": lambda task: when(task.updated_at),
        "title": lambda task: task.title,
        "status": lambda task: task.status,
        "due_date": lambda task: when(task.due_date),
    }
    for field, key in keys.items():
        for direction in ("asc", "desc"):
            seen, page_token = [], ""
            while True:
                order = f"{field} {direction}"
                page = world.task("ListTasks", token, page_size=10, order_by=order, page_token=page_token)
                assert len(page.tasks) <= 10
                seen += page.tasks
                page_token = page.next_page_token
                if not page_token:
                    break
            assert len(seen) == len(made) and {task.id for task in seen} == set(made), order
            values = [key(task) for task in seen]
            present = [value for value in values if value is not None]
            assert present == sorted(present, reverse=direction == "desc"), order
            assert values[: len(present)] == present, "tasks without a due date come last"
    listed = world.task("ListTasks", token, title_contains="K 0", page_size=100).tasks
    assert {task.title for task in listed} == {f"task 0{n}" for n in range(10)}
    first = world.task("ListTasks", token, page_size=5)
    refused(
        INVALID, "PAGE_TOKEN_INVALID", world.task, "ListTasks", token, page_token=first.next_page_token, order_by="title"
    )
    _, others = world.sign_up()
    refused(
        INVALID, "PAGE_TOKEN_INVALID", world.task, "ListTasks", others.access_token, page_token=first.next_page_token
    )


def test_batches_are_atomic_and_name_the_part(world):
    _, tokens = world.sign_up()
    token = tokens.access_token
    made = world.task("BatchCreateTasks", token, requests=[{"title": f"t{n}"} for n in range(3)]).tasks
    assert [task.title for task in made] == ["t0", "t1", "t2"]
    bad = [{"title": "good"}, {"title": " "}]
    refusal = refused(INVALID, "VALIDATION_FAILED", world.task, "BatchCreateTasks", token, requests=bad)
    assert (refusal.metadata["index"], refusal.fields) == ("1", ["requests[1].title"])
    ids = [made[2].id, str(uuid.uuid4()), made[0].id]
    for name in ("BatchGetTasks", "BatchDeleteTasks"):
        assert refused(MISSING, "TASK_NOT_FOUND", world.task, name, token, ids=ids).metadata["index"] == "1"
    got = world.task("BatchGetTasks", token, ids=[made[2].id, made[0].id]).tasks
    assert list(got) == [made[2], made[0]]
    changes = [{"task": {"id": task.id, "title": task.title + "!", "etag": task.etag}} for task in made]
    changed = world.task("BatchUpdateTasks", token, requests=changes).tasks
    assert [task.title for task in changed] == ["t0!", "t1!", "t2!"]
    refusal = refused(
        grpc.StatusCode.ABORTED, "ETAG_MISMATCH", world.task, "BatchUpdateTasks", token, requests=changes[1:]
    )
    assert refusal.metadata["index"] == "0"
    world.task("BatchDeleteTasks", token, ids=[task.id for task in made])
    stats = world.task("GetTaskStats", token).stats
    assert stats.total == 0, stats


def test_statistics_count_what_there_is(world):
    _, tokens = world.sign_up()
    token = tokens.access_token
    past = {"seconds": 1}
    requests = [{"title": "t", "status": status, "due_date": past} for status in (1, 1, 2, 3, 4)]
    world.task("BatchCreateTasks", token, requests=requests)
    stats = world.task("GetTaskStats", token).stats
    counts = (stats.total, stats.todo, stats.in_progress, stats.completed, stats.cancelled, stats.overdue)
    assert counts == (5, 2, 1, 1, 1, 3), counts
    hour_ago = datetime.now(timezone.utc) - timedelta(hours=1)
    assert world.task("GetTaskStats", token, completed_after=hour_ago).stats.completed_in_period == 1
    assert world.task("GetTaskStats", token, completed_before=hour_ago).stats.completed_in_period == 0


def test_nobody_sees_anothers_tasks_but_administrators(world):
    ann, anns = world.sign_up()
    _, bobs = world.sign_up()
    _, roots = world.admin()
    task = world.task("CreateTask", anns.access_token, title="ann's").task
    for name, fields in (("GetTask", {"id": task.id}), ("DeleteTask", {"id": task.id}), ("BatchGetTasks", {"ids": [task.id]})):
        refused(MISSING, "TASK_NOT_FOUND", world.task, name, bobs.access_token, **fields)
    for name in ("ListTasks", "GetTaskStats"):
        refused(DENIED, "PERMISSION_MISSING", world.task, name, bobs.access_token, user_id=ann.id)
        world.task(name, roots.access_token, user_id=ann.id)
    refused(DENIED, "PERMISSION_MISSING", world.owner, "PurgeUserTasks", bobs.access_token, user_id=ann.id)
    assert world.task("GetTask", roots.access_token, id=task.id).task == task


def test_tasks_change_owners_and_go_with_them(world):
    ann, anns = world.sign_up()
    bob, bobs = world.sign_up()
    _, roots = world.admin()
    made = world.task("BatchCreateTasks", anns.access_token, requests=[{"title": f"t{n}"} for n in range(5)]).tasks
    give = dict(from_user_id=ann.id, to_user_id=bob.id)
    some = [made[0].id]
    assert world.owner("ReassignTasks", roots.access_token, task_ids=some, **give).task_count == 1
    assert world.owner("ReassignTasks", roots.access_token, task_ids=some, **give).task_count == 0
    assert world.owner("ReassignTasks", roots.access_token, **give).task_count == 4
    assert world.task("GetTaskStats", bobs.access_token).stats.total == 5
    # The account goes, and its tasks with it, by auth-service's own doing.
    world.auth.call("auth.v1.AuthService", "DeleteMe", bobs.access_token, password=PASSWORD)
    until = time.monotonic() + 60
    while world.task("GetTaskStats", roots.access_token, user_id=bob.id).stats.total:
        assert time.monotonic() < until, "the tasks of a deleted account stay"
        time.sleep(0.1)


def test_a_watch_tells_everything_and_resumes(world):
    _, tokens = world.sign_up()
    token = tokens.access_token
    before = world.task("CreateTask", token, title="before").task
    stream = world.tasks_api.call("task.v1.TaskService", "WatchTasks", token, timeout=60, snapshot=True)
    events = [next(stream) for _ in range(3)]
    assert [event.WhichOneof("event") for event in events] == ["snapshot_started", "upserted", "snapshot_completed"]
    assert events[1].upserted == before and events[2].snapshot_completed.task_count == 1
    resume = events[2].resume_token

    def told(stream, count):
        seen = []
        for event in stream:
            if event.WhichOneof("event") != "heartbeat":
                seen.append((event.WhichOneof("event"), event.upserted.etag or event.deleted.id))
            if len(seen) == count:
                return seen

    made = world.task("CreateTask", token, title="made").task
    changed = world.task("UpdateTask", token, task={"id": made.id, "title": "changed"}).task
    world.task("DeleteTask", token, id=made.id)
    expected = [("upserted", made.etag), ("upserted", changed.etag), ("deleted", made.id)]
    assert told(stream, 3) == expected
    stream.cancel()
    again = world.tasks_api.call("task.v1.TaskService", "WatchTasks", token, timeout=60, resume_token=resume)
    assert told(again, 3) == expected, "who comes back is told what happened meanwhile"
    again.cancel()


def test_a_spent_deadline_is_told(world):
    _, tokens = world.sign_up()
    try:
        world.task("ListTasks", tokens.access_token, timeout=0.000_001)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    else:
        raise AssertionError("a microsecond is enough?")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        world = World(json.load(file))
    tests = {name: test for name, test in globals().items() if name.startswith("test_")}
    failed = 0
    for name, test in tests.items():
        begun = time.monotonic()
        try:
            test(world)
            outcome = "ok"
        except Exception:
            failed += 1
            outcome = "FAILED\n" + traceback.format_exc()
        print(f"{name.removeprefix('test_').replace('_', ' ')}: {outcome} ({time.monotonic() - begun:.1f} s)", flush=True)
    print(f"{len(tests) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
