//! What every pod is: unprivileged, with resources; and what every server is: probed, and given time to end.

use k8s_openapi::api::core::v1::{Container, Probe, SecurityContext};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::assert_none;
use crate::objects::Pod;
use crate::programs::{duration, settings};
use crate::render;

/// What a service needs beside the hashing: 18 MiB idle as measured, the rest is room for connections and messages.
const MEMORY_BESIDE_HASHING: u64 = 128 << 20;
/// The background tasks of a server and of its service get five seconds each to end after the drain (`service-kit`, `server/run.rs`).
const TASKS_END: u64 = 10;

/// Runs `rules` for every pod; each breach is named with its directory and owner.
fn for_every_pod(which: impl Fn(&Pod<'_>) -> bool, rules: impl Fn(&Pod<'_>, &Container) -> Vec<(bool, &'static str)>) {
    let mut breaches = Vec::new();
    for rendered in render::all() {
        for pod in rendered.objects.pods().into_iter().filter(&which) {
            let broken = rules(&pod, pod.container()).into_iter().filter(|(held, _)| !held);
            breaches.extend(broken.map(|(_, rule)| format!("{}: {}: {rule}", rendered.directory, pod.owner)));
        }
    }
    assert_none(&breaches, "write into the manifest:");
}

#[test]
fn every_pod_is_unprivileged() {
    for_every_pod(
        |_| true,
        |pod, container| {
            let of_pod = pod.spec.security_context.clone().unwrap_or_default();
            let own = container.security_context.clone().unwrap_or_default();
            let SecurityContext {
                allow_privilege_escalation, capabilities, privileged, read_only_root_filesystem, ..
            } = own;
            let capabilities = capabilities.unwrap_or_default();
            let seccomp = of_pod.seccomp_profile.map(|profile| profile.type_);
            let host = [pod.spec.host_network, pod.spec.host_pid, pod.spec.host_ipc];
            vec![
                (of_pod.run_as_non_root == Some(true), "securityContext.runAsNonRoot: true"),
                (of_pod.run_as_user.is_some_and(|user| user > 0), "securityContext.runAsUser: a number above 0"),
                (seccomp.as_deref() == Some("RuntimeDefault"), "securityContext.seccompProfile: RuntimeDefault"),
                (allow_privilege_escalation == Some(false), "allowPrivilegeEscalation: false"),
                (read_only_root_filesystem == Some(true), "readOnlyRootFilesystem: true"),
                (privileged != Some(true), "no privileged: true"),
                (
                    capabilities.drop == Some(vec!["ALL".to_owned()]) && capabilities.add.is_none(),
                    "capabilities: drop ALL, add none",
                ),
                (pod.spec.automount_service_account_token == Some(false), "automountServiceAccountToken: false"),
                (pod.spec.enable_service_links == Some(false), "enableServiceLinks: false"),
                (host.iter().all(Option::is_none), "no hostNetwork, hostPID, hostIPC"),
                (pod.spec.volumes.iter().flatten().all(|volume| volume.host_path.is_none()), "no hostPath"),
            ]
        },
    );
}

#[test]
fn every_container_says_what_it_takes() {
    for_every_pod(
        |_| true,
        |_, container| {
            let resources = container.resources.clone().unwrap_or_default();
            let (requests, limits) = (resources.requests.unwrap_or_default(), resources.limits.unwrap_or_default());
            let memory = |of: &std::collections::BTreeMap<String, Quantity>| of.get("memory").map(bytes);
            vec![
                (requests.contains_key("cpu"), "resources.requests.cpu"),
                (
                    memory(&requests).is_some() && memory(&requests) <= memory(&limits),
                    "memory of requests and limits, the first within the second",
                ),
                (limits.contains_key("ephemeral-storage"), "resources.limits.ephemeral-storage"),
                (!limits.contains_key("cpu"), "no limit of the CPU: it slows every burst"),
            ]
        },
    );
}

#[test]
fn servers_are_probed_and_liveness_leaves_the_database_alone() {
    // `/livez` answers without the database: service-kit, `http.rs`; `programs.rs` here asks it for real.
    let is_livez = |probe: &Option<Probe>| {
        let get = probe.as_ref().and_then(|probe| probe.http_get.as_ref());
        get.is_some_and(|get| {
            get.path.as_deref() == Some("/livez") && get.port == IntOrString::String("metrics".to_owned())
        })
    };
    for_every_pod(
        |pod| pod.component() == "server",
        |_, container| {
            let ports = container.ports.clone().unwrap_or_default();
            let grpc = ports.iter().find(|port| port.name.as_deref() == Some("grpc")).map(|port| port.container_port);
            let ready = container.readiness_probe.as_ref().and_then(|probe| probe.grpc.as_ref());
            vec![
                (is_livez(&container.startup_probe), "startupProbe: GET /livez on the port `metrics`"),
                (is_livez(&container.liveness_probe), "livenessProbe: GET /livez on the port `metrics`"),
                (grpc.is_some() && ready.map(|probe| probe.port) == grpc, "readinessProbe: grpc on the port `grpc`"),
                (ready.is_some_and(|probe| probe.service.is_none()), "readinessProbe of the whole server: no service"),
            ]
        },
    );
}

#[tokio::test]
async fn servers_get_the_time_to_end_that_they_are_told_to_take() {
    let mut breaches = Vec::new();
    for rendered in render::all() {
        for pod in rendered.objects.servers() {
            let settings = settings(&rendered.objects, &pod).await;
            let needed =
                duration(&settings["SHUTDOWN_PROPAGATION"]) + duration(&settings["SHUTDOWN_DRAIN"]) + TASKS_END;
            let grace = pod.spec.termination_grace_period_seconds.unwrap_or(30);
            if u64::try_from(grace).unwrap() <= needed {
                breaches
                    .push(format!("{}: {}: {grace} s; a shutdown may take {needed} s", rendered.directory, pod.owner));
            }
        }
    }
    assert_none(&breaches, "terminationGracePeriodSeconds must be longer than the shutdown:");
}

#[tokio::test]
async fn the_memory_of_the_auth_service_holds_its_hashing() {
    let mut breaches = Vec::new();
    for rendered in render::all() {
        for pod in rendered.objects.servers().into_iter().filter(|pod| pod.service() == tests::Service::Auth) {
            let settings = settings(&rendered.objects, &pod).await;
            let kib = |name: &str| settings[name].parse::<u64>().unwrap() << 10;
            // As auth-service/src/config.rs counts them, on a node with that many cores.
            let threads = (kib("HASHING_MEMORY_BUDGET_KIB") / kib("PASSWORD_HASH_MEMORY_KIB")).max(1);
            let usual = threads * kib("PASSWORD_HASH_MEMORY_KIB") + MEMORY_BESIDE_HASHING;
            let most = threads * kib("PASSWORD_HASH_MAX_MEMORY_KIB") + MEMORY_BESIDE_HASHING;
            let resources = pod.container().resources.clone().unwrap_or_default();
            for (what, quantity, needed) in
                [("request", &resources.requests, usual), ("limit", &resources.limits, most)]
            {
                let given = quantity.as_ref().and_then(|quantity| quantity.get("memory")).map_or(0, bytes);
                if given < needed {
                    breaches.push(format!(
                        "{}: memory {what} {given}; {threads} threads need {needed}",
                        rendered.directory
                    ));
                }
            }
        }
    }
    assert_none(&breaches, "give it more memory, or lower HASHING_MEMORY_BUDGET_KIB or PASSWORD_HASH_MAX_MEMORY_KIB:");
}

/// A quantity of memory in bytes.
fn bytes(quantity: &Quantity) -> u64 {
    let digits = quantity.0.trim_end_matches(|c: char| c.is_alphabetic());
    let number: u64 =
        digits.parse().unwrap_or_else(|_| panic!("memory {}: expected a whole number with Mi or Gi", quantity.0));
    match &quantity.0[digits.len()..] {
        "Mi" => number << 20,
        "Gi" => number << 30,
        _ => panic!("memory {}: expected Mi or Gi", quantity.0),
    }
}
